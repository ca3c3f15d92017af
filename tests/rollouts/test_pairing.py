import pytest
import torch
from tiny import sampled

from nrt_lightning.rollouts import PromptAndTrace, all_pairs, first_traces


def alone(policy, prompt, trace):
    """Log-prob of a trace after a prompt, without padding or batch."""
    with torch.no_grad():
        logprobs = policy.network(torch.cat([prompt, trace]).unsqueeze(0)).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(trace.tolist()))


def test_every_trace_is_scored_after_every_prompt(policy):
    pairs = first_traces(sampled(policy))
    with policy.evaluating():
        scores = (
            policy.score(all_pairs(pairs, policy.markup.marker_ids)).logprobs.sum(dim=1).view(3, 3)
        )  # [prompt, trace]
    for i, j in [(0, 0), (0, 1), (2, 1), (1, 2)]:
        expected = alone(policy, pairs[i].prompt_ids, pairs[j].trace_ids)
        assert float(scores[i, j]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_first_traces_are_those_of_the_groups(policy):
    rollouts = sampled(policy)
    for prompt, pair in enumerate(first_traces(rollouts)):
        row = 3 * prompt
        assert pair.prompt_ids.tolist() == rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]].tolist()
        assert pair.trace_ids.tolist() == rollouts.completion_ids[row][rollouts.segments.trace_mask[row]].tolist()


def test_empty_traces_have_probability_one(policy):
    pairs = [PromptAndTrace(p.prompt_ids, p.trace_ids[:0]) for p in first_traces(sampled(policy))]
    with policy.evaluating():
        assert torch.equal(policy.score(all_pairs(pairs, policy.markup.marker_ids)).logprobs.sum(dim=1), torch.zeros(9))
