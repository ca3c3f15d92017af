"""Figures of sampled groups that tell whether NRT can start."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nrt_lightning.metrics import reward_correctness
from nrt_lightning.tools.preflight.endings import WrittenEnd, written_end
from nrt_lightning.tools.preflight.sample import Sample
from nrt_lightning.tools.preflight.setup import Setup

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
class SignalFigures:
    """Figures of a signal, or of the reward that signals are combined to. Traces for which it failed do not count."""

    mean: float
    spread: float  # standard deviation
    zero_variance: float  # fraction of groups whose values are all equal
    right_first: float | None  # as of an aggregation
    auroc_within: float | None
    failed: float  # fraction of traces


@dataclass
class Measures:
    """All figures of a preflight."""

    rows: int
    setup: Setup
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
    signals: dict[str, SignalFigures] = field(default_factory=dict)  # with `reward` first; empty without signals
    end: WrittenEnd | None = None  # how the policy ends right answers; None if there are none


def measure(sample: Sample, setup: Setup, tokenizer: PreTrainedTokenizerBase) -> Measures:
    """Compute the figures of a sample."""
    checked = bool(sample.right.any())
    useful, groups = useful_traces(sample)
    best = sample.logprobs.max(dim=1).values  # [R]
    best_borrowed = sample.borrowed_logprobs.max(dim=1).values  # [R]
    specific = best - best_borrowed  # [R]
    aggregations = {name: aggregation(sample, index) for index, name in enumerate(setup.aggregators)}
    chance = correctness(sample.right, sample.rewards[..., 0]).get("right_first_by_chance")
    values = {name: sample.signals[..., index] for index, name in enumerate(setup.signals)}
    signals = {name: signal(sample.right, value) for name, value in ({"reward": sample.reward} | values).items()}
    return Measures(
        rows=len(sample.right),
        setup=setup,
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
        ended_by_marker=mean(sample.by_marker),
        ended_by_eos=mean(sample.by_eos),
        cut=mean(~sample.by_marker & ~sample.by_eos),
        right_first_by_chance=chance,
        aggregations=aggregations,
        signals=signals if setup.signals else {},
        end=written_end(sample.ends, sample.end_logprobs, tokenizer),
    )


def useful_traces(sample: Sample) -> tuple[Fraction, float]:
    """The fraction of useful traces, and the fraction of groups with a useful trace.

    If some answer is right, a trace is useful if the answer after it is right and the answer without a trace is not.
    Otherwise, a trace is useful if it raises the answer's log-prob by more than 99 % of the traces borrowed from other
    rows do; the 1 % that do so by chance is subtracted.
    """
    if sample.right.any():
        useful = sample.right & ~sample.direct_right.unsqueeze(1)  # [R, K]
        return interval(int(useful.sum()), useful.numel()), mean(useful.any(dim=1))
    gain = sample.logprobs - sample.direct_logprobs.unsqueeze(1)  # [R, K]
    borrowed = sample.borrowed_logprobs - sample.direct_logprobs.unsqueeze(1)  # [R, K]
    limit = borrowed.double().quantile(1 - CHANCE)
    found = interval(int((gain > limit).sum()), gain.numel())
    fraction = beyond(found, interval(int((borrowed > limit).sum()), borrowed.numel()))
    return fraction, 1 - (1 - fraction.value) ** gain.shape[1]


def beyond(found: Fraction, chance: Fraction) -> Fraction:
    """The difference of two independent fractions, 0 or more, with Newcombe's interval.

    Source: Statistics in Medicine 17 (1998), 873, method 10.

    >>> beyond(interval(30, 1024), interval(10, 1024))
    Fraction(value=0.0195..., low=0.0076..., high=0.0325...)
    """
    value = found.value - chance.value
    low = value - math.hypot(found.value - found.low, chance.high - chance.value)
    high = value + math.hypot(found.high - found.value, chance.value - chance.low)
    return Fraction(max(0.0, value), max(0.0, low), max(0.0, high))


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
    values = correctness(sample.right, rewards)
    return Aggregation(
        gain=float(gain.mean()),
        groups_with_gain=mean((gain > 0).any(dim=1)),
        zero_variance=mean((rewards == rewards[:, :1]).all(dim=1)),
        right_first=values.get("right_first"),
        auroc_within=values.get("auroc_within"),
    )


def signal(right: Tensor, values: Tensor) -> SignalFigures:
    """Figures of a signal, [R, K] each."""
    known = values.isfinite()  # [R, K]
    if not known.any():
        return SignalFigures(math.nan, math.nan, 1.0, None, None, 1.0)
    highest = values.where(known, -math.inf).max(dim=1).values  # [R]
    lowest = values.where(known, math.inf).min(dim=1).values  # [R]
    found = correctness(right, values)
    return SignalFigures(
        mean=mean(values[known]),
        spread=float(values[known].double().std(correction=0)),
        zero_variance=mean(~(highest > lowest)),
        right_first=found.get("right_first"),
        auroc_within=found.get("auroc_within"),
        failed=mean(~known),
    )


def correctness(right: Tensor, values: Tensor) -> dict[str, float]:
    """`reward_correctness` of finite values, [R, K] each."""
    known = values.isfinite().flatten()
    groups = torch.arange(len(right)).repeat_interleave(right.shape[1])
    found = reward_correctness(values.flatten()[known], right.flatten()[known], groups[known])
    return {name: float(value) for name, value in found.items()}


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
