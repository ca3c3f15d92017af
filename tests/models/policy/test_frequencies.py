"""Rotary frequencies stay in float32, and rows beyond the length at which they change are refused."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from short_runs import nrt_module
from tiny import ANSWERS, QUESTIONS, make_prompts, sampled, save_tiny

from benchmarks.architectures import build
from nrt_lightning import InputError, LoRA, Policy, TransformersEngine
from nrt_lightning.models.policy.frequencies import rotary_buffers
from nrt_lightning.models.policy.vocabulary import position_limit
from nrt_lightning.models.scoring.certainty import token_certainty
from nrt_lightning.rollouts import GenerationRequest

FAMILIES = ["llama", "gemma3_text", "qwen3_5_text", "gptj", "codegen", "phi", "modernbert-decoder"]


def frequencies(policy) -> dict[str, torch.Tensor]:
    return {f"{type(module).__name__}.{name}": module._buffers[name] for module, name in rotary_buffers(policy)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_conversions_leave_them_in_float32(family):
    policy = build(family)
    before = {name: value.clone() for name, value in frequencies(policy).items()}
    assert before
    policy.to(torch.bfloat16)
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    after = frequencies(policy)
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        assert torch.equal(after[name], value)
    assert policy.score(sampled(policy)).logprobs.isfinite().all(), "the model computes with both dtypes"


@pytest.mark.parametrize("settings", [{}, {"adapter": LoRA(rank=2)}, {"dtype": "bfloat16"}], ids=repr)
def test_they_are_those_of_float32_under_bf16_true(tmp_path, settings):
    path = save_tiny(tmp_path, "llama")
    module = nrt_module(policy=Policy(path, **settings).load())
    HalfPrecision("bf16-true").convert_module(module)
    expected = frequencies(Policy(path).load())
    assert all(torch.equal(value, expected[name]) for name, value in frequencies(module.policy).items())


def test_a_live_model_that_was_rounded_gets_them_back(tmp_path):
    exact = Policy(save_tiny(tmp_path, "llama")).load()
    model = Policy(str(tmp_path)).load().network.to(torch.bfloat16)
    assert model.model.rotary_emb.inv_freq.dtype == torch.bfloat16
    live = Policy(model, tokenizer=exact.tokenizer)
    assert all(torch.equal(value, frequencies(exact)[name]) for name, value in frequencies(live).items())


LONG = {
    "longrope": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 1e4,
                 "original_max_position_embeddings": 32},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
}  # fmt: skip


def changing(kind: str) -> Policy:
    """Its frequencies change beyond 32 tokens."""
    limits = {"max_position_embeddings": 32} if kind == "dynamic" else {"original_max_position_embeddings": 32}
    return build("llama" if kind == "dynamic" else "phi3", {"rope_parameters": LONG[kind], **limits})


@pytest.mark.parametrize("kind", sorted(LONG))
def test_rows_are_refused_where_they_change_with_the_batch(kind):
    policy = changing(kind)
    assert position_limit(policy.network) == 32
    rollouts = sampled(policy, max_new_tokens=6)
    alone = policy.score(rollouts).logprobs
    assert alone.isfinite().all(), "within the limit"
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 30, [])
    with pytest.raises(InputError, match=r"32 positions .*rotary frequencies.* needs \d+"):
        TransformersEngine().generate(policy, request)
    rollouts.prompt_ids = rollouts.prompt_ids.repeat(1, 3)
    rollouts.prompt_mask = rollouts.prompt_mask.repeat(1, 3)
    for compute in (policy.score, lambda it: token_certainty(policy.network, it)):
        with pytest.raises(InputError, match=r"pretrained with 32 tokens, .*sequences have \d+"):
            compute(rollouts)
