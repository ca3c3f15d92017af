"""Policies around live models, with an adapter: the same as those that are read from files."""

import pytest
import torch
from test_lora import gradients, perturbed, trained
from tiny import BASE, sampled, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning import (
    AdapterDisabledReference,
    AdapterFiles,
    FourBit,
    FrozenReference,
    InputError,
    LoRA,
    Merged,
    Policy,
    QuantizedReference,
    export_policy,
)


def live(**settings):
    return AutoModelForCausalLM.from_pretrained(BASE, **settings)


def wrapped(model=None, **settings):
    return Policy.wrap(model or live(), AutoTokenizer.from_pretrained(BASE), **settings)


def four_bits():
    pytest.importorskip("bitsandbytes")
    return live(quantization_config=FourBit().config(torch.float32))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_is_the_policy_of_its_files(quantized, checkpointing):
    settings = {"adapter": LoRA(rank=2), "activation_checkpointing": checkpointing}
    policy = wrapped(four_bits() if quantized else None, **settings)
    read = Policy(BASE, quantization=FourBit() if quantized else None, **settings).load()
    rollouts = sampled(policy)  # in eval mode, which must not repack a live model's weights either
    ours, theirs = (gradients(perturbed(each), rollouts) for each in (policy, read))
    assert torch.equal(ours[0].logprobs, theirs[0].logprobs)
    assert ours[1].keys() == theirs[1].keys() == policy.state_dict().keys() == trained(policy).keys()
    assert all(torch.equal(grad, theirs[1][name]) for name, grad in ours[1].items())
    assert policy.quantized == quantized


def test_its_references_are_the_base():
    policy, base = wrapped(adapter=LoRA(rank=2)), Policy(BASE).load()
    frozen, disabled = FrozenReference(), AdapterDisabledReference()
    for reference in (frozen, disabled):
        reference.load(policy)
    rollouts = sampled(perturbed(policy))
    with base.evaluating():
        expected = base.score(rollouts).logprobs
    assert torch.equal(disabled.logprobs(rollouts), expected)
    torch.testing.assert_close(frozen.logprobs(rollouts), expected, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"random or live.*AdapterDisabledReference"):
        QuantizedReference().load(policy)


def test_the_base_is_told_by_its_weights():
    first, same = (wrapped(adapter=LoRA(rank=2)).fingerprint() for _ in range(2))
    other = live()
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.add_(1e-3)
    assert first == same
    assert wrapped(other, adapter=LoRA(rank=2)).fingerprint()["base"] != first["base"]


def test_it_is_exported_like_any_other(tmp_path):
    policy = perturbed(wrapped(adapter=LoRA(rank=2)))
    ids = torch.tensor([[5, 6, 7, policy.marker_id, 9]])
    directory = export_policy(policy, tmp_path / "merged", Merged("float32"))
    with torch.no_grad():
        here, there = policy.network(ids).logits, AutoModelForCausalLM.from_pretrained(directory)(ids).logits
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)
    assert export_policy(policy, tmp_path / "adapter", AdapterFiles())
    nameless = live()
    nameless.name_or_path = ""
    with pytest.raises(InputError, match=r"base is live and in no files.*Use Merged"):
        export_policy(wrapped(nameless, adapter=LoRA(rank=2)), tmp_path / "nowhere", AdapterFiles())


def test_a_second_adapter_and_one_that_does_not_fit_are_refused():
    policy = wrapped(adapter=LoRA(rank=2))
    for model in (policy.model, policy.network):
        with pytest.raises(InputError, match=r"has an adapter already. Give the base"):
            wrapped(model, adapter=LoRA(rank=2))
    with pytest.raises(InputError, match=r"\['q_prj'\] match no linear layer.*q_proj"):
        wrapped(adapter=LoRA(targets=["q_prj"]))
    assert wrapped(policy.model.merge_and_unload(), adapter=LoRA(rank=2)).fingerprint()


def test_an_exported_adapter_is_no_model(tmp_path):
    directory = export_policy(Policy(BASE, adapter=LoRA(rank=2)).load(), tmp_path / "m", AdapterFiles())
    with pytest.raises(InputError, match=r"holds an adapter without its base. Give the base.*Merged"):
        Policy(str(directory))
    policy = Policy(BASE, weights="random", adapter=LoRA(rank=2)).load()
    with pytest.raises(InputError, match=r"base is random and in no files.*Use Merged"):
        export_policy(policy, tmp_path / "n", AdapterFiles())


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_gpt2s_own_layers_are_quantized_and_merged(tmp_path, weights):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = save_tiny(tmp_path / "gpt2", "gpt2")
    policy = perturbed(Policy(base, weights=weights, adapter=LoRA(rank=2), quantization=FourBit()).load()).eval()
    assert sum(isinstance(m, bitsandbytes.nn.Linear4bit) for m in policy.modules()) == 2 * 4
    directory = export_policy(policy, tmp_path / "m", Merged("float32"))
    ids = torch.tensor([[5, 6, 7, policy.marker_id, 9]])
    with torch.no_grad():
        here, there = policy.network(ids).logits, AutoModelForCausalLM.from_pretrained(directory)(ids).logits
    assert (there - here).norm() / here.norm() < 1e-4
