"""Every architecture is scored and sampled as plain forward passes have it, or refused."""

import math

import pytest
import torch
from tiny import ANSWERS, QUESTIONS, make_prompts
from torch import nn

from benchmarks.architectures import build
from nrt_lightning import InputError, TransformersEngine
from nrt_lightning.models.scoring import packed_groups
from nrt_lightning.models.scoring.base import PromptCopies
from nrt_lightning.models.scoring.best import WRONG
from nrt_lightning.models.scoring.certainty import token_certainty
from nrt_lightning.models.scoring.packed_groups import PackedGroups
from nrt_lightning.models.scoring.prompt_tree import PromptTree
from nrt_lightning.models.scoring.self_check import DIFFERENCES, HALF, LEAST, LONGEST, alone, is_right, least_of, takes
from nrt_lightning.rollouts import GenerationRequest, assemble

FAMILIES = ["diffllama", "hrm_text", "bloom", "gpt_oss", "mixtral", "mpt", "gpt_neo", "gpt_neox", "opt", "gemma3_text",
            "olmo2", "cohere2"]  # fmt: skip
MORE = ["phi", "gemma2", "stablelm", "starcoder2", "granite", "gptj", "codegen", "biogpt", "llama4_text", "ctrl",
        "openai-gpt", "xglm", "nanochat", "smollm3", "ernie4_5", "doge", "persimmon", "exaone4", "glm4"]  # fmt: skip


def rollouts_of(policy):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 8, policy.eos_ids, 2, seed=1, logprobs=True)
    with policy.evaluating():
        out = TransformersEngine().generate(policy, request)
    return assemble(prompts, out, policy.markup), out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_sampled_and_scored_as_by_plain_forwards(family, checkpointed):
    if checkpointed and family in ("ctrl", "openai-gpt"):
        pytest.skip("the model has no activation checkpointing")
    policy = build(family, activation_checkpointing=checkpointed).eval()
    rollouts, out = rollouts_of(policy)
    with torch.no_grad():
        scores = policy.score(rollouts, baseline=True)
        for row in range(6):
            expected = alone(policy.network, rollouts, row)
            torch.testing.assert_close(scores.logprobs[row][: len(expected)], expected, atol=1e-4, rtol=1e-4)
            width = int(out.token_mask[row].sum())
            torch.testing.assert_close(out.logprobs[row][:width], expected[:width], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("family", "wrong"), [("diffllama", PackedGroups), ("hrm_text", PackedGroups)])
def test_a_wrong_forward_is_named_and_not_used(family, wrong, caplog):
    policy = build(family).eval()
    rollouts, _ = rollouts_of(policy)
    before = torch.get_rng_state()
    with torch.no_grad():
        policy.score(rollouts)
    assert torch.equal(torch.get_rng_state(), before), "no random number is drawn"
    assert WRONG[policy.network] == {wrong}
    assert f"{wrong.__name__} is not used: for {type(policy.network).__name__} its log-probs differ" in caplog.text


def test_under_checkpointing_masks_that_a_model_does_not_take_are_found():
    policy = build("bloom", activation_checkpointing=True).train()
    rollouts, _ = rollouts_of(policy)
    policy.score(rollouts).logprobs.sum().backward()
    assert WRONG[policy.network] == {PromptTree}
    assert DIFFERENCES[policy.network][PromptTree] == float("inf")
    assert policy.network.training, "the mode is as before"


def test_a_model_that_reads_later_tokens_is_refused(policy):
    class Reads(nn.Module):
        def forward(self, hidden):
            return hidden + hidden.flip(1)

    rollouts, _ = rollouts_of(policy)
    policy.network.model.norm = nn.Sequential(policy.network.model.norm, Reads())
    with pytest.raises(InputError, match=r"policy.model: \w+ reads later tokens"):
        policy.score(rollouts)


def test_a_model_that_sees_padding_is_refused(policy):
    class SeesPadding(nn.Module):
        def forward(self, hidden):
            return hidden + hidden[:, :1]

    rollouts, _ = rollouts_of(policy)
    policy.network.model.norm = nn.Sequential(policy.network.model.norm, SeesPadding())
    with pytest.raises(InputError, match=r"policy.model: \w+ gives other log-probs in a padded batch than alone"):
        policy.score(rollouts)
    assert PromptCopies in DIFFERENCES[policy.network]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")],
)
def test_a_check_that_runs_out_of_memory_says_so(policy, monkeypatch, error):
    rollouts, _ = rollouts_of(policy)

    def fail(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(PackedGroups, "__call__", fail)
    with pytest.raises(torch.OutOfMemoryError, match="memory"):
        policy.score(rollouts)
    assert PackedGroups not in DIFFERENCES[policy.network]
    monkeypatch.undo()
    policy.score(rollouts)
    assert policy.network not in WRONG, "it is tried again"


@pytest.mark.parametrize("family", ["qwen3_5_text", "llama"])
def test_certainty_is_that_of_the_row_alone(family):
    """Padding enters no state."""
    policy = build(family).eval()
    rollouts, _ = rollouts_of(policy)
    found = token_certainty(policy.network, rollouts)
    for row in range(len(rollouts)):
        prompt = int(rollouts.group_ids[row])
        before = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
        after = rollouts.completion_ids[row][rollouts.segments.completion_mask[row]]
        with torch.no_grad():
            logits = policy.network(torch.cat([before, after]).unsqueeze(0), use_cache=False).logits[0]
        logprobs = logits[len(before) - 1 : -1].log_softmax(-1)  # [c, V]
        expected = -logprobs.mean(dim=-1) - math.log(logits.shape[-1])  # KL(U || pi)
        torch.testing.assert_close(found[row][: len(after)], expected, atol=1e-4, rtol=1e-4)


def test_a_forward_that_is_wrong_about_common_beginnings_alone_is_found(monkeypatch):
    """They are read once, by code that prompts without one do not take."""
    attend = packed_groups.attend_prompts

    def wrong(layout, q, k, v, scale, dropout):
        return attend(layout, q, k, v * 1.5 if layout.common else v, scale, dropout)

    monkeypatch.setattr(packed_groups, "attend_prompts", wrong)
    assert not is_right(build("llama").eval().network, PackedGroups())


def test_models_of_few_positions_are_tried_with_short_prompts():
    policy = build("llama").eval()
    assert takes(policy.network, PackedGroups(), LONGEST)
    policy.network.config.max_position_embeddings = LONGEST - 1
    assert not takes(policy.network, PackedGroups(), LONGEST)
    assert is_right(policy.network, PackedGroups())


@pytest.mark.parametrize(("precision", "least"), [("highest", LEAST[torch.float32]), ("medium", HALF)])
def test_the_bound_allows_for_products_of_float32_that_are_rounded(policy, precision, least):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert least_of(policy.network) == least
        assert is_right(policy.network, PromptTree())
    finally:
        torch.set_float32_matmul_precision(before)
