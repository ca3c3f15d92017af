"""Groups of sampled traces with the answer that the policy gives after each: what rewards are compared with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.evaluation.evaluate import right_answers
from nrt_lightning.models import Policy
from nrt_lightning.rollouts import GenerationRequest, Generations, Progress, RolloutEngine
from nrt_lightning.rollouts.answering import after_marker, answer_limits, within
from nrt_lightning.rollouts.sampled_tokens import generate
from nrt_lightning.structures import Prompts, Scores
from nrt_lightning.training.method import Method
from nrt_lightning.training.sampling import measure_signals, sample_window


@dataclass
class Probe:
    """K traces for each of B prompts, scored as in training."""

    batch: Prompts  # with rollouts and their old scores: `Method.compute_rewards` gives the rewards
    traces: Generations  # N of them, with the stop token where there is one
    scores: Scores  # of the policy, with its baseline
    answers: Generations  # N of the policy, one after each trace
    right: Tensor  # [N] True: the policy's answer after the trace is right, see `right_answers`


def probe(method: Method, prompts: Prompts, seed: int, progress: Progress | None = None) -> Probe:
    """Sample and score traces as training does, and let the policy answer greedily after each trace.

    Costs B * K sampled traces, as many scored completions and as many decoded answers: a training step without its
    backward pass, and the answers.

    Args:
        method: how traces are sampled and rewarded.
        prompts: B questions with their reference answers.
        seed: of the draws.
        progress: called as tokens of traces are written.
    """
    policy = method.policy
    with policy.evaluating():
        sampled = sample_window(method, prompts, seed, progress=progress)
        measure_signals(method, sampled.micro_batches)
        [batch] = sampled.micro_batches
        rollouts, trained = batch.sampled, batch.trained
        assert sampled.traces is not None
        scores = policy.score(rollouts, baseline=True)
        rollouts.old_scores = method.add_baseline(rollouts, scores)
        if method.kl_penalty is not None:
            old = trained.old_scores or method.score_rollouts(trained, policy, answers=False)
            trained.old_scores = method.add_reference(trained, old)
        repeated = repeat(prompts, method.sampling.group_size)  # N questions
        answers = answers_after(policy, method.engine, repeated, sampled.traces)
        right = right_answers(policy, repeated, answers)
    return Probe(batch, sampled.traces, scores, answers, right)


def repeat(prompts: Prompts, times: int) -> Prompts:
    """Each question as often as it has traces."""
    many = prompts.apply(lambda tensor: tensor.repeat_interleave(times, dim=0))
    return dataclasses.replace(many, rows=[row for row in prompts.rows for _ in range(times)])


def answers_after(policy: Policy, engine: RolloutEngine, prompts: Prompts, traces: Generations) -> Generations:
    """Greedy answers after one trace and the marker for each prompt, each `within` its own limit."""
    ids, mask = after_marker(prompts, traces, policy.markup)
    limits = answer_limits(prompts)  # [B]
    request = GenerationRequest(
        ids, mask, int(limits.max()), stop_ids=policy.eos_ids, temperature=0.0, stop_text=policy.markup.end_text
    )
    return within(generate(engine, policy, request), limits)
