"""Filter by the difficulty of the question without a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_fraction, check_interval, masked_mean


@dataclass
class DifficultyBandFilter(GroupFilter):
    """Keeps a group if `low <= (b_1 ... b_T)^(1/T) <= high`, with b_i the confidence after the empty trace.

    Questions above the band can be answered without a trace; questions below are still too hard for the policy. Online
    filtering by difficulty is from arXiv 2504.03380, which measures it by exact match.

    Args:
        low: lower bound of the mean confidence, from 0 to 1.
        high: upper bound of the mean confidence, from 0 to 1.

    Raises:
        InputError: if the bounds are out of range or out of order.

    Example:
        >>> import torch
        >>> DifficultyBandFilter(low=0.1, high=0.9).keep(torch.tensor([0.05, 0.5, 0.95]))
        tensor([False,  True, False])
    """

    needs_baseline = True
    needs_answer_logprobs = False
    needs_group = False
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_interval("low", self.low, "high", self.high)
        check_fraction("high", self.high)

    def measure(self, groups: Groups) -> Tensor:
        """Geometric mean of the confidences after the empty trace. -> `[G]`"""
        if groups.baseline_logprobs is None:
            raise InputError(f"{self} requires Groups.baseline_logprobs, the log-probs after the empty trace.")
        return groups.per_group(masked_mean(groups.baseline_logprobs, groups.answer_mask, dim=1).exp())

    def keep(self, values: Tensor) -> Tensor:
        """Keep values within the band. `[G]` -> `[G]` bool"""
        return (values >= self.low) & (values <= self.high)
