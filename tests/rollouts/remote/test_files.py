"""Directories of weights are complete or absent, and can be read."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny
from transformers import AutoModelForCausalLM

from nrt_lightning import Policy
from nrt_lightning.rollouts.remote import atomic_directory, write_model, write_weights


def test_a_directory_appears_when_it_is_full(tmp_path):
    target = tmp_path / "d"
    with atomic_directory(target) as directory:
        (directory / "a").write_text("x")
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert (target / "a").read_text() == "x"


def test_what_breaks_off_leaves_the_old_directory_and_nothing_else(tmp_path):
    target = tmp_path / "d"
    target.mkdir()
    with pytest.raises(RuntimeError), atomic_directory(target):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("size", [10**9, 10_000], ids=["one file", "several"])
def test_a_model_in_one_file_or_several_is_read_back(size, tmp_path, monkeypatch):
    monkeypatch.setattr("nrt_lightning.rollouts.remote.files.FILE_BYTES", size)
    policy = Policy(save_tiny(tmp_path / "base", "llama")).load().eval()
    directory = write_model(policy, tmp_path / "served")
    assert (len(list(directory.glob("*.safetensors"))) > 1) == (size < 10**9)
    ids = torch.tensor([[1, 10, policy.markup.marker_ids[0]]])
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(directory)(ids).logits, policy.network(ids).logits)


def test_under_autocast_half_the_bytes_are_written_and_nothing_is_copied_twice(tmp_path, monkeypatch):
    policy = Policy("embedded:registers-base").load()
    cloned = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **settings: cloned.append(self) or clone(self, **settings))
    sizes = {}
    for name, context in (("float32", nullcontext()), ("bfloat16", torch.autocast("cpu", torch.bfloat16))):
        (tmp_path / name).mkdir()
        with context:
            write_weights(policy, tmp_path / name)
        found = load_file(tmp_path / name / "model.safetensors")
        assert {weight.dtype for weight in found.values()} == {getattr(torch, name)}
        for weight, parameter in policy.network.named_parameters():
            assert torch.equal(found[weight], parameter.to(getattr(torch, name)))
        sizes[name] = sum(weight.nbytes for weight in found.values())
    assert sizes["bfloat16"] == sizes["float32"] / 2
    tied = policy.network.config.tie_word_embeddings
    assert len(cloned) <= 2 * tied  # the head, in each file
