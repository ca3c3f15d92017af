"""Treatment of truncated traces, those that reached the length limit without the marker."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import check_at_least
from nrt_lightning.structures import Rollouts


class OverlongTraces(ABC):  # noqa: B024  (both methods have a default)
    """Adjusts the rewards of truncated traces or excludes them from the loss. `rollout/truncated_share` counts them."""

    needs_logprobs = False  # True: rewards must be log-probs of the answers
    needs_batch = False  # True: rewards depend on those of the other groups of the micro-batch
    lowers_rewards = False  # True: rewards of at least 0 may become negative

    def rewards(self, values: Tensor, rollouts: Rollouts, max_trace_tokens: int) -> Tensor:
        """Adjust the trace rewards `values` for length. `[N]` -> `[N]`"""
        return values

    def loss_rows(self, rollouts: Rollouts) -> Tensor | None:
        """The rollouts that carry a loss, `[N]` bool; None for all."""
        return None


@dataclass(frozen=True)
class KeepOverlong(OverlongTraces):
    """Treats truncated traces like all others: the marker is forced after the cut, and the answer is scored."""


@dataclass(frozen=True)
class MaskOverlong(OverlongTraces):
    """Excludes truncated traces from all terms of the loss: DAPO's overlong filtering (arXiv 2503.14476).

    Their rewards remain in their groups, so the advantages of the other traces do not change.
    """

    def loss_rows(self, rollouts: Rollouts) -> Tensor | None:
        """The traces that ended before the limit, `[N]`."""
        return ~rollouts.truncated


@dataclass(frozen=True)
class PenalizeOverlong(OverlongTraces):
    """`R <- R - penalty * max(0, length - (limit - soft_tokens)) / soft_tokens`, and `R - penalty` where truncated.

    DAPO's soft overlong punishment (arXiv 2503.14476, equation 13, with a penalty of 1), which grows linearly over the
    last `soft_tokens` before the limit.

    Args:
        penalty: penalty of a truncated trace; of the order of differences between rewards.
        soft_tokens: number of tokens before the limit over which the penalty grows; 0 penalizes only truncated traces.

    Raises:
        InputError: if a number is negative.

    Example:
        >>> PenalizeOverlong(penalty=1.0, soft_tokens=10).amount(torch.tensor([85, 95, 100]), 100)
        tensor([0.0000, 0.5000, 1.0000])
    """

    lowers_rewards = True
    penalty: float = 1.0
    soft_tokens: int = 0

    def __post_init__(self) -> None:
        check_at_least("overlong.penalty", self.penalty, 0)
        check_at_least("overlong.soft_tokens", self.soft_tokens, 0)

    def amount(self, lengths: Tensor, limit: int) -> Tensor:
        """The penalty `[N]` of traces of these lengths that were not truncated."""
        over = (lengths - (limit - self.soft_tokens)).clamp(min=0) / max(self.soft_tokens, 1)
        return self.penalty * over if self.soft_tokens else torch.zeros_like(over)

    def rewards(self, values: Tensor, rollouts: Rollouts, max_trace_tokens: int) -> Tensor:
        """Subtract the penalties from the trace rewards `values`. `[N]` -> `[N]`"""
        lengths = rollouts.segments.trace_mask.sum(dim=1)  # [N]
        return values - torch.where(rollouts.truncated, self.penalty, self.amount(lengths, max_trace_tokens))


@dataclass(frozen=True)
class TwiceTheMean(OverlongTraces):
    """Gives a truncated trace twice the mean reward of the micro-batch, for log-prob rewards.

    Of LaTRO (arXiv 2411.04282): log-probs are negative, so twice their mean is low. The mean is over the finite rewards
    of all traces of the micro-batch, truncated ones included. A trace that an end token ended keeps its reward. Rewards
    must be log-probs: twice a positive mean would be high.

    Example:
        >>> TwiceTheMean.replaced(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([False, False, True]))
        tensor([-1., -2., -4.])
    """

    needs_batch = True
    needs_logprobs = True

    @staticmethod
    def replaced(values: Tensor, truncated: Tensor) -> Tensor:
        """The rewards `[N]` with twice their mean for the rows `truncated`, `[N]`."""
        finite = values.isfinite()
        mean = torch.where(finite, values, 0).sum() / finite.sum().clamp(min=1)
        return torch.where(truncated, 2 * mean, values)

    def rewards(self, values: Tensor, rollouts: Rollouts, max_trace_tokens: int) -> Tensor:
        """Replace the rewards of truncated traces. `[N]` -> `[N]`"""
        return self.replaced(values, rollouts.truncated)
