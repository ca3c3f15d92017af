"""Groups of sampled traces with the answer that the policy gives after each: what rewards are held against."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.evaluation.evaluate import right_answers
from nrt_lightning.models import Policy
from nrt_lightning.rollouts import GenerationRequest, Generations, RolloutEngine, assemble, trace_request
from nrt_lightning.rollouts.answering import after_marker, texts
from nrt_lightning.structures import Prompts, Rollouts, Sampling, Scores


@dataclass
class Probe:
    """K traces for each of B prompts, and what comes of them."""

    traces: Generations  # N of them, with the stop token where there is one
    rollouts: Rollouts
    scores: Scores  # with the baseline
    right: Tensor  # [N] whether the policy's own answer after the trace is right, see `right_answers`


def probe(policy: Policy, engine: RolloutEngine, prompts: Prompts, sampling: Sampling, seed: int) -> Probe:
    """Sample traces as training does, score the reference answers, and let the policy answer greedily after each trace.

    Costs B * K sampled traces, as many scored completions and as many decoded answers: a training step without its
    backward pass, and the answers.

    Args:
        policy: who writes, without gradient.
        engine: what decodes.
        prompts: B questions with their reference answers.
        sampling: how traces are drawn.
        seed: of the draws.
    """
    with policy.evaluating():
        traces = engine.generate(policy, trace_request(policy, prompts, sampling, seed))
        rollouts = assemble(prompts, traces, policy.marker_id)
        scores = policy.score(rollouts, baseline=True)
        repeated = repeat(prompts, sampling.group_size)  # N questions
        right = right_answers(policy, repeated, answers_after(policy, engine, repeated, traces))
    return Probe(traces, rollouts, scores, right)


def repeat(prompts: Prompts, times: int) -> Prompts:
    """Each question as often as it has traces."""
    many = prompts.apply(lambda tensor: tensor.repeat_interleave(times, dim=0))
    return dataclasses.replace(many, rows=[row for row in prompts.rows for _ in range(times)])


def answers_after(policy: Policy, engine: RolloutEngine, prompts: Prompts, traces: Generations) -> list[str]:
    """Greedy answers after one trace and the marker for each prompt."""
    ids, mask = after_marker(prompts, traces, policy.marker_id)
    limit = prompts.answer_ids.shape[1]  # a longer answer cannot be the reference answer
    request = GenerationRequest(ids, mask, limit, stop_ids=policy.eos_ids, temperature=0.0)
    return texts(policy, engine.generate(policy, request))
