"""What becomes of traces that reached their limit without the marker."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import check_at_least
from nrt_lightning.structures import Rollouts


class OverlongTraces(ABC):  # noqa: B024  (both methods have a default)
    """What truncated traces are worth, and whether they are learned from. `rollout/truncated_share` counts them."""

    def rewards(self, values: Tensor, rollouts: Rollouts, max_trace_tokens: int) -> Tensor:
        """The trace rewards, `[N]`, of rewards `[N]` that know of no limit."""
        return values

    def loss_rows(self, rollouts: Rollouts) -> Tensor | None:
        """The rollouts that carry a loss, `[N]` bool; None for all."""
        return None


@dataclass(frozen=True)
class KeepOverlong(OverlongTraces):
    """Nothing: a truncated trace is worth what its marker, forced where it was cut, and the answer say it is worth."""


@dataclass(frozen=True)
class MaskOverlong(OverlongTraces):
    """A truncated trace carries no loss of any term: DAPO's overlong filtering (arXiv 2503.14476).

    Its reward is still one of its group's, so what the others are worth does not depend on this setting.
    """

    def loss_rows(self, rollouts: Rollouts) -> Tensor | None:
        """The traces that ended before the limit, `[N]`."""
        return ~rollouts.truncated


@dataclass(frozen=True)
class PenalizeOverlong(OverlongTraces):
    """`R <- R - penalty * max(0, length - (limit - soft_tokens)) / soft_tokens`, and `R - penalty` where truncated.

    DAPO's soft overlong punishment (arXiv 2503.14476, equation 13, with its penalty of 1): nothing up to
    `soft_tokens` before the limit, then in proportion, and all of it at the limit.

    Args:
        penalty: what a truncated trace loses; of the order of what rewards differ by.
        soft_tokens: length before the limit in which the penalty grows; 0 penalizes truncated traces alone.

    Raises:
        InputError: if a number is negative.

    Example:
        >>> PenalizeOverlong(penalty=1.0, soft_tokens=10).amount(torch.tensor([85, 95, 100]), 100)
        tensor([0.0000, 0.5000, 1.0000])
    """

    penalty: float = 1.0
    soft_tokens: int = 0

    def __post_init__(self) -> None:
        check_at_least("overlong.penalty", self.penalty, 0)
        check_at_least("overlong.soft_tokens", self.soft_tokens, 0)

    def amount(self, lengths: Tensor, limit: int) -> Tensor:
        """What traces of these lengths that were not truncated lose, [N]."""
        over = (lengths - (limit - self.soft_tokens)).clamp(min=0) / max(self.soft_tokens, 1)
        return self.penalty * over if self.soft_tokens else torch.zeros_like(over)

    def rewards(self, values: Tensor, rollouts: Rollouts, max_trace_tokens: int) -> Tensor:
        """See `OverlongTraces.rewards`."""
        lengths = rollouts.segments.trace_mask.sum(dim=1)  # [N]
        return values - torch.where(rollouts.truncated, self.penalty, self.amount(lengths, max_trace_tokens))
