"""What a preflight sees of some rows: their traces, what these do to answers, and their rewards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.evaluation.evaluate import right_answers
from nrt_lightning.evaluation.probe import Probe, answers_after, repeat
from nrt_lightning.functional import pack_segment
from nrt_lightning.metrics import rollout_metrics
from nrt_lightning.rewards import (
    ArithmeticMean,
    GeometricMean,
    LogProb,
    Prob,
    RewardAggregator,
    WeightedSum,
)
from nrt_lightning.rollouts import Generations, assemble
from nrt_lightning.rollouts.answering import nothing
from nrt_lightning.structures import Prompts, Rollouts, Scores, TensorStruct
from nrt_lightning.tools.preflight.endings import end_places, written_ends
from nrt_lightning.training.method import Method

AGGREGATORS = (WeightedSum("neg_log_prob"), WeightedSum("inverse_prob"), GeometricMean(), ArithmeticMean(), LogProb(),
               Prob())  # fmt: skip


@dataclass
class Sample(TensorStruct):
    """R rows with K traces each, N = R * K. Log-probs are means over the answer's tokens, in nats."""

    logprobs: Tensor  # [R, K] of the answer after each trace
    borrowed_logprobs: Tensor  # [R, K] of the answer after the traces of another row
    direct_logprobs: Tensor  # [R] of the answer after the empty trace
    right: Tensor  # [R, K] whether the policy's own answer after the trace is right, see `right_answers`
    direct_right: Tensor  # [R] whether it is after the empty trace
    tokens: Tensor  # [R, K] of the traces
    by_marker: Tensor  # [R, K] whether the policy wrote the marker
    by_eos: Tensor  # [R, K] whether it ended the trace with the end token; otherwise the limit cut it
    entropy: Tensor  # [R] of the trace's tokens, nats; the batch's mean
    distinct: Tensor  # [R] share of distinct traces in the groups of the batch
    rewards: Tensor  # [R, K, aggregations]
    empty_rewards: Tensor  # [R, aggregations] of the empty trace
    reward: Tensor  # [R, K] of the method, with signals and penalties; not finite where a signal failed
    signals: Tensor  # [R, K, signals] of the method
    ends: Tensor  # [R, K] tokens that the policy wrote after reference answers, see `written_ends`
    end_logprobs: Tensor  # [R, K] of the first token of the end that is set, after the reference answer

    @classmethod
    def joined(cls, samples: list[Sample]) -> Sample:
        """All rows of some samples."""
        return cls(*(torch.cat([getattr(s, name) for s in samples]) for name in cls.__dataclass_fields__))


def sample_of(
    method: Method, prompts: Prompts, seen: Probe, others: Generations, aggregators: list[RewardAggregator]
) -> Sample:
    """The figures of R rows.

    Args:
        method: its policy wrote the traces.
        prompts: the rows.
        seen: their traces with scores and answers.
        others: K traces for each row that were written for another one.
        aggregators: whose rewards are computed.
    """
    policy = method.policy
    with policy.evaluating():
        borrowed = assemble(prompts, others, policy.markup)
        elsewhere = policy.score(borrowed).logprobs.where(borrowed.segments.answer_mask, 0).sum(dim=1)  # [N]
        direct = right_answers(policy, prompts, answers_after(policy, method.engine, prompts, nothing(prompts)))  # [R]
    rollouts, scores = seen.batch.sampled, seen.scores
    assert scores.baseline_logprobs is not None
    shape, length = (len(prompts), -1), prompts.answer_mask.sum(dim=1).clamp(min=1)  # [R]
    answers = scores.logprobs.where(rollouts.segments.answer_mask, 0).sum(dim=1)  # [N]
    looks, one = rollout_metrics(rollouts, scores.entropy), torch.ones_like(length, dtype=torch.float)
    emitted = rollouts.segments.marker_emitted  # [N]
    logprobs = pack_segment(scores.logprobs, rollouts.segments.answer_mask, rollouts.answer_ids.shape[1])  # [N, T]
    rewards, empty = all_rewards(rollouts, scores, logprobs, aggregators)
    repeated, end_tokens = repeat(prompts, method.sampling.group_size), len(policy.markup.end_ids)
    reward = method.compute_rewards(seen.batch)
    signals = (
        torch.stack([*reward.signals.values()], dim=1) if reward.signals else reward.value.new_zeros(len(emitted), 0)
    )
    return Sample(
        logprobs=answers.view(shape) / length.unsqueeze(1),
        borrowed_logprobs=elsewhere.view(shape) / length.unsqueeze(1),
        direct_logprobs=scores.baseline_logprobs.where(prompts.answer_mask, 0).sum(dim=1) / length,
        right=seen.right.view(shape),
        direct_right=direct,
        tokens=rollouts.segments.trace_mask.sum(dim=1).view(shape),
        by_marker=emitted.view(shape),
        by_eos=(seen.traces.stopped & ~emitted).view(shape),
        entropy=looks["trace_entropy"].value * one,
        distinct=looks["unique_traces"].value * one,
        rewards=rewards.view(len(prompts), -1, len(aggregators)),
        empty_rewards=empty,
        reward=reward.value.float().view(shape),
        signals=signals.float().view(*seen.right.view(shape).shape, signals.shape[1]),
        ends=written_ends(repeated, seen.answers, end_tokens).view(shape),
        end_logprobs=logprobs.gather(1, end_places(repeated, end_tokens).unsqueeze(1)).view(shape),
    )


def all_rewards(
    rollouts: Rollouts, scores: Scores, logprobs: Tensor, aggregators: list[RewardAggregator]
) -> tuple[Tensor, Tensor]:
    """Trace rewards [N, aggregations] and those of the empty trace [R, aggregations], from log-probs [N, T]."""
    baseline, rows = scores.baseline_logprobs, rollouts.group_ids
    assert baseline is not None
    given = [a(logprobs, rollouts.answer_mask[rows], baseline[rows]).value for a in aggregators]
    empty = [a(baseline, rollouts.answer_mask, baseline).value for a in aggregators]
    return torch.stack(given, dim=1), torch.stack(empty, dim=1)
