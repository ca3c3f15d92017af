"""Figures of sampled groups that tell whether NRT can start."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.metrics import reward_correctness
from nrt_lightning.tools.preflight.sampler import PreflightModule, Sample

CHANCE = 0.01  # fraction of traces that count as useful by chance if answers cannot be checked


@dataclass
class Fraction:
    """A fraction with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass
class Answers:
    """Quality of answers under one condition."""

    confidence: float  # in an answer token: geometric mean over the answer, mean over rows
    right: float | None  # fraction of sampled answers that are right


@dataclass
class Aggregation:
    """Figures of the rewards of one aggregation."""

    gain: float  # mean of reward minus reward of the empty trace
    groups_with_gain: float  # fraction of groups in which a trace has a positive gain
    zero_variance: float  # fraction of groups whose rewards are all equal
    right_first: float | None  # fraction of groups, of those with right and wrong traces, where a right one ranks first
    auroc_within: float | None  # probability that a right trace has a higher reward than a wrong one of its group


@dataclass
class Measures:
    """All figures of a preflight."""

    rows: int
    group_size: int
    max_trace_tokens: int
    suppress_eos: bool
    aggregator: str  # the configured one
    checked: bool  # True if some answer was right, so answers can tell which traces are useful
    useful: Fraction  # of traces; see `useful_traces`
    useful_groups: float  # fraction of groups with a useful trace
    specific_gain: float  # in nats per token: best trace of the group minus best trace of another row
    specific_gain_z: float  # the same in standard errors
    without_trace: Answers
    after_trace: Answers
    after_borrowed_trace: Answers
    after_best_trace: Answers  # of a group
    after_best_borrowed_trace: Answers  # of another row's group
    trace_tokens: float
    trace_entropy: float
    distinct: float
    ended_by_marker: float
    ended_by_eos: float
    cut: float
    right_first_by_chance: float | None
    aggregations: dict[str, Aggregation]


def measure(preflight: PreflightModule) -> Measures:
    """Compute the figures from the samples of a preflight."""
    sample, sampling = preflight.gathered(), preflight.method.sampling
    checked = bool(sample.right.any())
    useful, groups = useful_traces(sample)
    best = sample.logprobs.max(dim=1).values  # [R]
    best_borrowed = sample.borrowed_logprobs.max(dim=1).values  # [R]
    specific = best - best_borrowed  # [R]
    names = [aggregator.name for aggregator in preflight.aggregators]
    aggregations = {name: aggregation(sample, index) for index, name in enumerate(names)}
    chance = correctness(sample, 0).get("right_first_by_chance")
    return Measures(
        rows=len(sample.right),
        group_size=sampling.group_size,
        max_trace_tokens=sampling.max_trace_tokens,
        suppress_eos=sampling.suppress_eos,
        aggregator=preflight.method.aggregator.name,
        checked=checked,
        useful=useful,
        useful_groups=groups,
        specific_gain=float(specific.mean()),
        specific_gain_z=float(specific.mean() / (specific.std() / math.sqrt(len(specific))).clamp(min=1e-9)),
        without_trace=Answers(confidence(sample.direct_logprobs), mean(sample.direct_right)),
        after_trace=Answers(confidence(sample.logprobs), mean(sample.right)),
        after_borrowed_trace=Answers(confidence(sample.borrowed_logprobs), None),
        after_best_trace=Answers(confidence(best), mean(sample.right.any(dim=1))),
        after_best_borrowed_trace=Answers(confidence(best_borrowed), None),
        trace_tokens=mean(sample.tokens),
        trace_entropy=mean(sample.entropy),
        distinct=mean(sample.distinct),
        ended_by_marker=mean(sample.emitted),
        ended_by_eos=mean(~sample.emitted & ~sample.cut),
        cut=mean(sample.cut),
        right_first_by_chance=chance,
        aggregations=aggregations,
    )


def useful_traces(sample: Sample) -> tuple[Fraction, float]:
    """The fraction of useful traces, and the fraction of groups with a useful trace.

    If some answer is right, a trace is useful if the answer after it is right and the answer without a trace is not.
    Otherwise, a trace is useful if it raises the answer's log-prob by more than 99 % of the traces borrowed from other
    rows do; the 1 % that do so by chance is subtracted.
    """
    if sample.right.any():
        useful = sample.right & ~sample.direct_right.unsqueeze(1)  # [R, K]
        fraction, chance = interval(int(useful.sum()), useful.numel()), 0.0
    else:
        gain = sample.logprobs - sample.direct_logprobs.unsqueeze(1)  # [R, K]
        borrowed = sample.borrowed_logprobs - sample.direct_logprobs.unsqueeze(1)  # [R, K]
        useful = gain > borrowed.double().quantile(1 - CHANCE)
        fraction, chance = interval(int(useful.sum()), useful.numel()), CHANCE
    corrected = Fraction(*(max(0.0, value - chance) for value in (fraction.value, fraction.low, fraction.high)))
    return corrected, 1 - (1 - corrected.value) ** useful.shape[1] if chance else mean(useful.any(dim=1))


def interval(count: int, total: int, z: float = 1.96) -> Fraction:
    """A fraction with its Wilson interval.

    >>> interval(0, 1024)
    Fraction(value=0.0, low=0.0, high=0.0037...)
    """
    value, spread = count / total, z * z / total
    middle = (value + spread / 2) / (1 + spread)
    half = math.sqrt(value * (1 - value) * spread + spread * spread / 4) / (1 + spread)
    return Fraction(value, max(0.0, middle - half), middle + half)


def aggregation(sample: Sample, index: int) -> Aggregation:
    """Figures of one aggregation."""
    rewards, empty = sample.rewards[..., index], sample.empty_rewards[:, index]  # [R, K], [R]
    gain = rewards - empty.unsqueeze(1)
    values = correctness(sample, index)
    return Aggregation(
        gain=float(gain.mean()),
        groups_with_gain=mean((gain > 0).any(dim=1)),
        zero_variance=mean((rewards == rewards[:, :1]).all(dim=1)),
        right_first=values.get("right_first"),
        auroc_within=values.get("auroc_within"),
    )


def correctness(sample: Sample, index: int) -> dict[str, float]:
    """`reward_correctness` of one aggregation."""
    rows, group_size = sample.right.shape
    groups = torch.arange(rows).repeat_interleave(group_size)
    values = reward_correctness(sample.rewards[..., index].flatten(), sample.right.flatten(), groups)
    return {name: float(value) for name, value in values.items()}


def confidence(logprobs: Tensor) -> float:
    """Mean probability of an answer token, from mean log-probs."""
    return float(logprobs.exp().mean())


def mean(values: Tensor) -> float:
    """Mean of numbers or flags."""
    return float(values.double().mean())


def percent(fraction: float | None) -> str:
    """Format a fraction as a percentage.

    >>> percent(0.0125), percent(None)
    ('1.2 %', '-')
    """
    return "-" if fraction is None else f"{100 * fraction:.1f} %"
