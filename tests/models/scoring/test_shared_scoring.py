"""Prompts read once: the same log-probs and gradients as with a copy of the prompt for every completion."""

import dataclasses
import re

import pytest
import torch
from tiny import sampled, save_tiny

from nrt_lightning import InputError, Policy
from nrt_lightning.models import BestScoring, PackedGroups, PromptCopies, PromptTree, SharedPrompt
from nrt_lightning.models.scoring.layout import Layout, Seen, common_tokens

NAMES = {"PackedGroups", "SharedPrompt", "PromptTree"}


def gradients(policy, scoring, rollouts):
    policy.zero_grad()
    torch.manual_seed(3)
    weights = torch.randn(rollouts.completion_ids.shape)
    scores = scoring(policy.network, rollouts, baseline=True)
    (scores.logprobs * weights).sum().backward()
    return scores, {name: p.grad.clone() for name, p in policy.named_parameters()}


def check_same(policy, scoring, rollouts):
    expected, expected_grads = gradients(policy, PromptCopies(), rollouts)
    scores, grads = gradients(policy, scoring, rollouts)
    torch.testing.assert_close(scores.logprobs, expected.logprobs, atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy, expected.entropy, atol=3e-5, rtol=1e-5)
    mask = rollouts.answer_mask
    torch.testing.assert_close(scores.baseline_logprobs[mask], expected.baseline_logprobs[mask], atol=3e-5, rtol=1e-5)
    assert not scores.baseline_logprobs.requires_grad
    for name, grad in expected_grads.items():
        assert (grads[name] - grad).norm() <= 1e-5 * grad.norm() + 1e-9, name


@pytest.mark.parametrize("scoring", [SharedPrompt(), PromptTree(), PackedGroups()])
@pytest.mark.parametrize("group_size", [2, 16])
def test_same_as_copies(tiny_dir, scoring, group_size):
    policy = Policy(tiny_dir).load()
    check_same(policy, scoring, sampled(policy, group_size))


@pytest.mark.parametrize("scoring", [SharedPrompt(), PromptTree()])
def test_untied_heads_and_eager_attention(tmp_path, scoring):
    policy = Policy(save_tiny(tmp_path, "llama", tied=False), attn_implementation="eager").load()
    check_same(policy, scoring, sampled(policy))


def test_under_activation_checkpointing_packed_groups_attend_as_before(llama_dir):
    policy = Policy(llama_dir, activation_checkpointing=True).load()
    rollouts = sampled(policy, 4)
    assert isinstance(policy.scoring.choose(policy.network, 99), PackedGroups)
    before = policy.network.model.layers[0]._gradient_checkpointing_func
    check_same(policy, PackedGroups(), rollouts)
    assert policy.network.model.layers[0]._gradient_checkpointing_func is before
    expected, expected_grads = gradients(policy, PromptCopies(), rollouts)
    scores, grads = gradients(policy, PackedGroups(), rollouts)
    assert (scores.logprobs - expected.logprobs).abs().max() <= 1e-6 * expected.logprobs.abs().max()
    wrong = sum(float((grads[name] - grad).square().sum()) for name, grad in expected_grads.items()) ** 0.5
    assert wrong <= 1e-6 * sum(float(grad.square().sum()) for grad in expected_grads.values()) ** 0.5


def test_under_activation_checkpointing_two_batches_keep_their_layouts(llama_dir):
    policy = Policy(llama_dir, activation_checkpointing=True).load()
    weight = policy.network.model.layers[0].self_attn.k_proj.weight

    def loss(rollouts):
        torch.manual_seed(3)
        return (policy.score(rollouts, baseline=True).logprobs * torch.randn(rollouts.completion_ids.shape)).sum()

    batches, alone = [sampled(policy, 4), sampled(policy, 2)], []
    for batch in batches:
        alone.append(torch.autograd.grad(loss(batch), weight)[0])
    both = torch.autograd.grad(loss(batches[0]) + loss(batches[1]), weight)[0]
    torch.testing.assert_close(both, alone[0] + alone[1])


def test_under_activation_checkpointing_the_tree_serves_where_attention_cannot_be_replaced(llama_dir):
    policy = Policy(llama_dir, activation_checkpointing=True, attn_implementation="eager").load()
    assert isinstance(policy.scoring.choose(policy.network, 99), PromptTree)
    with pytest.raises(InputError, match=r"policy\.scoring .*activation checkpointing"):
        SharedPrompt()(policy.network, sampled(policy))
    check_same(policy, PromptTree(), sampled(policy))


def test_masks_are_made_once_and_keys_kept_in_half_precision(llama_dir, monkeypatch):
    policy = Policy(llama_dir).load()
    seen = []

    def attend(query, key, value, *args, **kwargs):
        if args:  # the one token with which the head is tried is not packed
            seen.append((query.dtype, key.dtype, args[0].dtype, args[0].data_ptr()))
        return original(query, key, value, *args, **kwargs)

    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attend)
    with torch.autocast("cpu", torch.bfloat16):
        PackedGroups()(policy.network, sampled(policy, 4))
    assert {dtype for *types, _ in seen for dtype in types} == {torch.bfloat16}
    layers = len(policy.network.model.layers)
    assert layers > 1
    assert len({pointer for *_, pointer in seen}) == len(seen) / layers


def with_instructions(rollouts, tokens):
    """The rollouts with the same random tokens in front of every prompt."""
    mask = rollouts.prompt_mask
    count, width = mask.shape
    begin = torch.randint(4, 40, (tokens,), generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(count, tokens + width, dtype=torch.long)
    for row in range(count):
        own = torch.cat([begin, rollouts.prompt_ids[row][mask[row]]])
        ids[row, -len(own) :] = own
    column = torch.arange(tokens + width)
    found = column >= width - mask.sum(dim=1, keepdim=True)
    return dataclasses.replace(rollouts, prompt_ids=ids, prompt_mask=found)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_instructions_are_read_once_with_the_same_log_probs_and_gradients(llama_dir, checkpointing):
    policy = Policy(llama_dir, activation_checkpointing=checkpointing).load()
    rollouts = with_instructions(sampled(policy, 4), 20)
    layout = Layout(rollouts)
    assert layout.common >= 20
    tokens = int(rollouts.prompt_mask.sum()) - (len(rollouts.prompt_ids) - 1) * layout.common
    assert len(layout.prompt_tokens(rollouts.prompt_ids)) == tokens
    check_same(policy, PackedGroups(), rollouts)


def test_one_prompt_has_no_instructions_in_common():
    ids = torch.arange(4, 40).unsqueeze(0)
    assert common_tokens(ids, ids > 0) == 0
    assert common_tokens(ids.expand(3, -1), ids.expand(3, -1) > 0) == 35, "the last token predicts"


def test_additive_masks_give_what_boolean_ones_give(llama_dir, monkeypatch):
    policy = Policy(llama_dir).load()
    rollouts = sampled(policy, 4)
    scores, grads = gradients(policy, PackedGroups(), rollouts)
    monkeypatch.setattr(Seen, "additive", lambda self, dtype, times: self.mask.repeat(1, 1, times, 1))
    expected, expected_grads = gradients(policy, PackedGroups(), rollouts)
    assert torch.equal(scores.logprobs, expected.logprobs)
    assert all(torch.equal(grads[name], expected_grads[name]) for name in grads)


def test_windows_shorter_than_the_sequence_are_scored_by_copies(tmp_path, caplog):
    policy = Policy(save_tiny(tmp_path, "mistral")).load()  # with the family's windows of 4,096 tokens
    assert isinstance(policy.scoring.choose(policy.network, 4096), PackedGroups)
    policy.network.config.sliding_window = 8
    with caplog.at_level("INFO"):
        assert isinstance(policy.scoring.choose(policy.network, 9), PromptCopies)
    assert {name for name in NAMES if re.search(rf"{name}.*\b8 .*\b9\b", caplog.text)} == NAMES
    rollouts = sampled(policy)
    for scoring in (SharedPrompt(), PromptTree(), PackedGroups()):
        with pytest.raises(InputError, match=rf"{type(scoring).__name__}.*\b8 .*\b{rollouts.length}\b"):
            scoring(policy.network, rollouts)
    assert policy.score(rollouts).logprobs.isfinite().all()


def test_the_prompt_is_read_once(policy):
    rollouts, seen = sampled(policy, 5), []
    policy.score(rollouts)  # the first time a model is also tried out
    policy.network.get_input_embeddings().register_forward_hook(lambda m, args, out: seen.append(args[0].shape))
    SharedPrompt()(policy.network, rollouts, baseline=True)
    assert seen == [
        rollouts.prompt_ids.shape,
        rollouts.completion_ids.shape,
        rollouts.empty_traces().completion_ids.shape,
    ]


def test_garbage_in_padding_changes_nothing(policy):
    rollouts = sampled(policy)
    noisy = dataclasses.replace(
        rollouts,
        completion_ids=torch.where(rollouts.segments.completion_mask, rollouts.completion_ids, 7),
        prompt_ids=torch.where(rollouts.prompt_mask, rollouts.prompt_ids, 9),
    )
    for scoring in (SharedPrompt(), PromptTree(), PackedGroups(), PromptCopies()):
        clean, other = scoring(policy.network, rollouts), scoring(policy.network, noisy)
        torch.testing.assert_close(clean.logprobs, other.logprobs)


def test_best_is_the_default(policy):
    assert policy.scoring == BestScoring()
    assert isinstance(policy.scoring.choose(policy.network, 99), PackedGroups)


def test_packed_groups_leave_the_model_as_it_was(policy):
    before = policy.network.config._attn_implementation
    check_same(policy, PackedGroups(), sampled(policy))
    assert policy.network.config._attn_implementation == before


def test_packed_groups_say_what_they_cannot_do(llama_dir):
    eager = Policy(llama_dir, attn_implementation="eager").load()
    with pytest.raises(InputError, match=r"policy\.scoring PackedGroups.*attn_implementation sdpa.*eager"):
        PackedGroups()(eager.network, sampled(eager))
