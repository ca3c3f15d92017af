import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny import BASE, save_tiny
from transformers import AutoModelForCausalLM, BertConfig

from nrt_lightning import InputError, Policy

MARKER = "<|response_start|>"


def test_marker_row_starts_from_the_end_token(tiny_dir):
    policy = Policy(tiny_dir).load()
    model, eos = policy.network, policy.tokenizer.eos_token_id
    before = AutoModelForCausalLM.from_pretrained(tiny_dir)
    for rows, old in (
        (model.get_input_embeddings().weight, before.get_input_embeddings().weight),
        (model.get_output_embeddings().weight, before.get_output_embeddings().weight),
    ):
        assert torch.equal(rows[policy.markup.marker_ids[0]], old[eos])
        others = [i for i in range(len(old)) if i != policy.markup.marker_ids[0]]
        assert torch.equal(rows[others], old[others])
        assert len(rows) == len(old), "a padded vocabulary has room for the marker and keeps its size"


@pytest.mark.parametrize("tied", [True, False])
def test_vocabulary_grows_only_where_the_marker_does_not_fit(tmp_path, tied):
    directory = save_tiny(tmp_path / "m", "llama", tied)
    policy = Policy(directory, marker=MARKER)
    room = policy.markup.marker_ids[0]
    model = AutoModelForCausalLM.from_pretrained(directory)
    model.resize_token_embeddings(room)  # exactly full without the marker
    model.save_pretrained(directory)
    policy = Policy(directory, marker=MARKER).load()
    assert policy.network.get_input_embeddings().weight.shape[0] == room + 1
    eos = policy.tokenizer.eos_token_id
    weight = policy.network.get_output_embeddings().weight
    assert torch.equal(weight[room], weight[eos])


def test_known_marker_keeps_its_trained_row(tmp_path):
    policy = Policy(BASE).load()
    with torch.no_grad():
        policy.network.get_input_embeddings().weight[policy.markup.marker_ids[0]] = 7.0
    policy.network.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = Policy(str(tmp_path)).load()
    assert again.markup.marker_ids[0] == policy.markup.marker_ids[0]
    assert (again.network.get_input_embeddings().weight[again.markup.marker_ids[0]] == 7.0).all()


def test_loaded_policy_trains_and_evaluating_restores_modes():
    policy = Policy(BASE).load()
    assert all(m.training for m in policy.modules())
    frozen = policy.network.get_submodule("model.norm").eval()
    with policy.evaluating():
        assert not any(m.training for m in policy.modules())
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert not frozen.training
    assert policy.network.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype(dtype):
    policy = Policy(BASE, dtype=dtype).load()
    assert {p.dtype for p in policy.parameters()} == {getattr(torch, dtype)}


def test_random_weights_differ_from_the_shipped_ones():
    torch.manual_seed(0)
    random = Policy(BASE, weights="random").load().state_dict()
    shipped = Policy(BASE).load().state_dict()
    assert random.keys() == shipped.keys()
    assert not torch.equal(random["model.model.embed_tokens.weight"], shipped["model.model.embed_tokens.weight"])


def test_end_tokens_include_the_generation_configs(tmp_path):
    shutil.copytree(BASE, tmp_path / "m")
    file = tmp_path / "m" / "generation_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"eos_token_id": [2, 5]}))
    assert Policy(str(tmp_path / "m")).load().eos_ids == [2, 5]


def change_tokenizer(tmp_path, **changes):
    shutil.copytree(BASE, tmp_path / "m")
    file = tmp_path / "m" / "tokenizer_config.json"
    config = {k: v for k, v in (json.loads(file.read_text()) | changes).items() if v is not None}
    file.write_text(json.dumps(config))
    return str(tmp_path / "m")


def test_tokenizer_without_eos_is_refused(tmp_path):
    with pytest.raises(InputError, match="eos_token"):
        Policy(change_tokenizer(tmp_path, eos_token=None))


def test_tokenizer_without_pad_is_refused_unless_one_is_named(tmp_path):
    directory = change_tokenizer(tmp_path, pad_token=None)
    with pytest.raises(InputError, match=r"policy\.pad_token.*'</s>'"):
        Policy(directory)
    assert Policy(directory, pad_token="</s>").tokenizer.pad_token_id == 2
    with pytest.raises(InputError, match=r"policy\.pad_token '<pda>'.*'<pad>'"):
        Policy(BASE, pad_token="<pda>")


@pytest.mark.parametrize(("marker", "reason"), [("</s>", "eos_token"), ("A+", "cannot be written"), (" ", "")])
def test_marker_that_means_something_else_is_refused(marker, reason):
    with pytest.raises(InputError, match=rf"policy\.marker {re.escape(repr(marker))}.*{reason}"):
        Policy(BASE, marker=marker)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/dir", ""),
        (Path("no-such-model"), ""),
        ("embedded:registers", "'registers-base'"),
        ("no-such-model-anywhere", "config"),
    ],
)
def test_missing_model_is_named(model, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=rf"policy\.model '{model}'.*{message}"):
        Policy(model)


def test_a_path_and_a_file():
    assert Policy(Path(BASE)).source == BASE
    with pytest.raises(InputError, match=r"policy\.model '.*config\.json'"):
        Policy(f"{BASE}/config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"weights cannot be read.*model\.safetensors"),
        (lambda folder: truncate(folder / "model.safetensors", 3000), "weights cannot be read"),
        (lambda folder: set_config(folder, intermediate_size=7), "other shapes"),
    ],
)
def test_weights_that_cannot_be_read_are_named(tmp_path, change, message):
    shutil.copytree(BASE, tmp_path / "m")
    change(tmp_path / "m")
    policy = Policy(tmp_path / "m")
    with pytest.raises(InputError, match=rf"policy\.model '.*/m': [^\n]*{message}[^\n]*$"):
        policy.load()


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def set_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    shutil.copytree(BASE, tmp_path / "m")
    set_config(tmp_path / "m", vocab_size=40)
    with pytest.raises(InputError, match="has 40 embeddings"):
        Policy(tmp_path / "m")


def test_an_encoder_is_refused(tmp_path):
    """Its tokens see the answer that they predict."""
    shutil.copytree(BASE, tmp_path / "m")
    BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64).save_pretrained(
        tmp_path / "m"
    )
    with pytest.raises(InputError, match=r"\(bert\) is an encoder"):
        Policy(tmp_path / "m")


def test_encoder_decoder_is_refused(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=72, d_model=8).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="encoder-decoder"):
        Policy(str(tmp_path))


def test_weights_are_read_in_load_only():
    policy = Policy(BASE)
    assert list(policy.parameters()) == []
    with pytest.raises(RuntimeError, match=r"call policy.load\(\) first"):
        _ = policy.network
