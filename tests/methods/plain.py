"""The published formulas in plain Python, independent of the package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from methods.hand_made import GROUP, Rollout, Tokens


@dataclass
class Expected:
    """Results of a method for the batch."""

    rewards: list[float]
    advantages: list[float]
    loss: float


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def std(values: list[float]) -> float:
    """Unbiased standard deviation."""
    return math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1))


def by_group(values: list[float], fn: Callable[[list[float]], list[float]]) -> list[float]:
    return [x for start in range(0, len(values), GROUP) for x in fn(values[start : start + GROUP])]


def confidences(r: Rollout) -> list[float]:
    return [math.exp(x) for x in r.answer.old]


def baselines(r: Rollout) -> list[float]:
    return [math.exp(x) for x in r.baseline]


# Rewards of one rollout


def log_prob(c: list[float], b: list[float]) -> float:
    return sum(math.log(x) for x in c)


def mean_log_prob(c: list[float], b: list[float]) -> float:
    return log_prob(c, b) / len(c)


def prob(c: list[float], b: list[float]) -> float:
    return math.prod(c)


def geometric_mean(c: list[float], b: list[float]) -> float:
    return math.prod(c) ** (1 / len(c))


def arithmetic_mean(c: list[float], b: list[float]) -> float:
    return mean(c)


def ws_neg_log_prob(c: list[float], b: list[float]) -> float:
    return mean([-math.log(y) * x for x, y in zip(c, b)])


def ws_inverse_prob(c: list[float], b: list[float]) -> float:
    return mean([x / y for x, y in zip(c, b)])


# Advantages of a group


def normalized(rewards: list[float], eps: float = 0.0) -> list[float]:
    return [(r - mean(rewards)) / (std(rewards) + eps) for r in rewards]


def centered(rewards: list[float]) -> list[float]:
    return [r - mean(rewards) for r in rewards]


def leave_one_out(rewards: list[float]) -> list[float]:
    """Rewards of minus infinity are excluded and get 0."""
    kept = [r for r in rewards if math.isfinite(r)]
    return [r - (sum(kept) - r) / (len(kept) - 1) if math.isfinite(r) else 0.0 for r in rewards]


def multi_sample(rewards: list[float]) -> list[float]:
    p = [math.exp(r) for r in rewards if math.isfinite(r)]
    return [
        len(p) * (math.log(mean(p)) - math.log((sum(p) - math.exp(r)) / (len(p) - 1))) if math.isfinite(r) else 0.0
        for r in rewards
    ]


def scaled_and_clipped(advantages: list[float], rewards: list[float]) -> list[float]:
    deviation = std([a for a, r in zip(advantages, rewards) if math.isfinite(r)])
    return [max(-1.0, min(1.0, a / deviation)) for a in advantages]


# Losses of single tokens


def cispo(advantage: float, new: float, old: float) -> float | None:
    """The loss, or None for a dropped token."""
    ratio = math.exp(new - old)
    if (advantage > 0 and ratio > 1.28) or (advantage < 0 and ratio < 0.8):
        return None
    return -advantage * min(max(ratio, 0.8), 1.28) * new


def ppo(low: float, high: float) -> Callable[[float, float, float], float]:
    def loss(advantage: float, new: float, old: float) -> float:
        ratio = math.exp(new - old)
        return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)

    return loss


def reinforce(advantage: float, new: float, old: float) -> float:
    return -advantage * new


def k2(new: float, ref: float) -> float:
    return (new - ref) ** 2 / 2


def k3(new: float, ref: float) -> float:
    return math.exp(ref - new) - 1 - (ref - new)


# Reductions of the token losses of all rollouts to a number


def sums_over(divisor: float, average: bool = True) -> Callable[[list[list[float]]], float]:
    def reduce(rows: list[list[float]]) -> float:
        return sum(map(sum, rows)) / divisor / (len(rows) if average else 1)

    return reduce


def token_mean(rows: list[list[float]]) -> float:
    return mean([x for row in rows for x in row])


def sequence_mean(rows: list[list[float]]) -> float:
    return mean([mean(row) for row in rows if row])


def trace_loss(
    tokens: list[Tokens],
    advantages: list[float],
    loss: Callable[[float, float, float], float | None],
    reduce: Callable[[list[list[float]]], float],
) -> float:
    rows = [
        [x for new, old in zip(t.new, t.old) if (x := loss(a, new, old)) is not None]
        for t, a in zip(tokens, advantages)
    ]
    return reduce(rows)


def kl_loss(
    tokens: list[Tokens], kl: Callable[[float, float], float], reduce: Callable[[list[list[float]]], float]
) -> float:
    return reduce([[kl(new, ref) for new, ref in zip(t.new, t.ref)] for t in tokens])
