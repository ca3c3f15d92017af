"""Policies of live models: the same as those that are read from files."""

import re

import pytest
import torch
from models.adapters.test_lora import gradients, perturbed, trained
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
from nrt_lightning.models.policy.fingerprint import fingerprint


def live(**settings):
    return AutoModelForCausalLM.from_pretrained(BASE, **settings)


def around(model=None, **settings):
    return Policy(model or live(), tokenizer=AutoTokenizer.from_pretrained(BASE), **settings)


def four_bits():
    pytest.importorskip("bitsandbytes")
    return live(quantization_config=FourBit().config(torch.float32))


def test_model_and_tokenizer_are_used_themselves():
    model, tokenizer = live(), AutoTokenizer.from_pretrained(BASE)
    policy = Policy(model, "<|think_end|>", tokenizer=tokenizer)
    assert policy.network is model
    assert tokenizer.convert_tokens_to_ids("<|think_end|>") == policy.markup.marker_ids[0]
    assert policy.load() is policy
    assert policy.network is model


@pytest.mark.parametrize(
    ("model", "tokenizer", "said"),
    [
        (lambda: live().model, None, r"LlamaModel without an output head.*AutoModelForCausalLM"),
        (lambda: live().to("meta"), None, r"LlamaForCausalLM .*meta device"),
        (live, "gpt2", r"policy\.tokenizer is a str.*AutoTokenizer\.from_pretrained\('gpt2'\)"),
        (live, torch.nn.Identity(), r"policy\.tokenizer is a Identity"),
    ],
)
def test_a_live_model_is_whole_and_has_a_tokenizer(model, tokenizer, said):
    with pytest.raises(InputError, match=said):
        Policy(model(), tokenizer=tokenizer or AutoTokenizer.from_pretrained(BASE))


def test_the_model_keeps_its_dtype():
    policy = around(live(dtype=torch.bfloat16))
    assert policy.dtype == torch.bfloat16
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("revision", "main"),
        ("dtype", "bfloat16"),
        ("weights", "random"),
        ("attn_implementation", "eager"),
        ("trust_remote_code", True),
        ("quantization", FourBit()),
    ],
)
def test_settings_that_only_files_can_have_are_refused(setting, value):
    model = live()
    with pytest.raises(InputError, match=rf"LlamaForCausalLM.*policy\.{setting}={re.escape(repr(value))}"):
        around(model, **{setting: value})
    assert around(model).marker_is_new, "nothing was changed"


def test_a_live_model_needs_its_tokenizer_and_a_path_none():
    with pytest.raises(InputError, match=r"LlamaForCausalLM.*tokenizer="):
        Policy(live())
    with pytest.raises(InputError, match=r"policy\.tokenizer.*registers-base"):
        Policy(BASE, tokenizer=AutoTokenizer.from_pretrained(BASE))
    with pytest.raises(InputError, match=r"policy\.model.*Linear"):
        around(torch.nn.Linear(2, 2))


def test_its_tokenizer_may_be_given_a_padding_token():
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.pad_token = None
    with pytest.raises(InputError, match=r"policy\.pad_token"):
        Policy(live(), tokenizer=tokenizer)
    assert Policy(live(), tokenizer=tokenizer, pad_token="</s>").tokenizer.pad_token_id == 2


def test_another_model_takes_its_settings():
    other = around(marker="<|think_end|>", adapter=LoRA(rank=2)).sibling(model=BASE, adapter=None)
    assert other.tokenizer.decode([other.markup.marker_ids[0]]) == "<|think_end|>"
    assert not other.live


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_is_the_policy_of_its_files(quantized, checkpointing):
    settings = {"adapter": LoRA(rank=2), "activation_checkpointing": checkpointing}
    policy = around(four_bits() if quantized else None, **settings)
    read = Policy(BASE, quantization=FourBit() if quantized else None, **settings).load()
    rollouts = sampled(policy)  # in eval mode, which must not repack a live model's weights either
    ours, theirs = (gradients(perturbed(each), rollouts) for each in (policy, read))
    assert torch.equal(ours[0].logprobs, theirs[0].logprobs)
    assert ours[1].keys() == theirs[1].keys() == policy.state_dict().keys() == trained(policy).keys()
    assert all(torch.equal(grad, theirs[1][name]) for name, grad in ours[1].items())
    assert policy.quantized == quantized


def test_its_references_are_the_base():
    policy, base = around(adapter=LoRA(rank=2)), Policy(BASE).load()
    frozen, disabled = FrozenReference(), AdapterDisabledReference()
    for reference in (frozen, disabled):
        reference.load(policy)
    rollouts = sampled(perturbed(policy))
    with base.evaluating():
        expected = base.score(rollouts).logprobs
    assert torch.equal(disabled.logprobs(rollouts), expected)
    torch.testing.assert_close(frozen.logprobs(rollouts), expected, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"QuantizedReference.*AdapterDisabledReference"):
        QuantizedReference().load(policy)


def test_the_base_is_told_by_its_weights():
    first, same = (fingerprint(around(adapter=LoRA(rank=2))) for _ in range(2))
    other = live()
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.add_(1e-3)
    assert first == same
    assert fingerprint(around(other, adapter=LoRA(rank=2)))["base"] != first["base"]


def test_it_is_exported_like_any_other(tmp_path):
    policy = perturbed(around(adapter=LoRA(rank=2)))
    ids = torch.tensor([[5, 6, 7, policy.markup.marker_ids[0], 9]])
    directory = export_policy(policy, tmp_path / "merged", Merged("float32"))
    with torch.no_grad():
        here, there = policy.network(ids).logits, AutoModelForCausalLM.from_pretrained(directory)(ids).logits
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)
    assert export_policy(policy, tmp_path / "adapter", AdapterFiles())
    nameless = live()
    nameless.name_or_path = ""
    with pytest.raises(InputError, match=r"AdapterFiles.*live.*Merged"):
        export_policy(around(nameless, adapter=LoRA(rank=2)), tmp_path / "nowhere", AdapterFiles())


def test_a_second_adapter_and_one_that_does_not_fit_are_refused():
    policy = around(adapter=LoRA(rank=2))
    for model in (policy.model, policy.network):
        with pytest.raises(InputError, match=r"adapter.*merge_and_unload"):
            around(model, adapter=LoRA(rank=2))
    with pytest.raises(InputError, match=r"adapter\.targets \['q_prj'\].*q_proj"):
        around(adapter=LoRA(targets=["q_prj"]))
    assert fingerprint(around(policy.model.merge_and_unload(), adapter=LoRA(rank=2)))


def test_an_exported_adapter_is_no_model(tmp_path):
    directory = export_policy(Policy(BASE, adapter=LoRA(rank=2)).load(), tmp_path / "m", AdapterFiles())
    with pytest.raises(InputError, match=r"policy\.model .*Merged"):
        Policy(str(directory))
    policy = Policy(BASE, weights="random", adapter=LoRA(rank=2)).load()
    with pytest.raises(InputError, match=r"AdapterFiles.*random.*Merged"):
        export_policy(policy, tmp_path / "n", AdapterFiles())


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_gpt2s_own_layers_are_quantized_and_merged(tmp_path, weights):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = save_tiny(tmp_path / "gpt2", "gpt2")
    policy = perturbed(Policy(base, weights=weights, adapter=LoRA(rank=2), quantization=FourBit()).load()).eval()
    assert sum(isinstance(m, bitsandbytes.nn.Linear4bit) for m in policy.modules()) == 2 * 4
    directory = export_policy(policy, tmp_path / "m", Merged("float32"))
    ids = torch.tensor([[5, 6, 7, policy.markup.marker_ids[0], 9]])
    with torch.no_grad():
        here, there = policy.network(ids).logits, AutoModelForCausalLM.from_pretrained(directory)(ids).logits
    assert (there - here).norm() / here.norm() < 1e-4
