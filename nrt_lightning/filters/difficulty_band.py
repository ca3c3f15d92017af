"""Drops questions that are too easy or too hard without a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_interval, check_share, masked_mean


@dataclass
class DifficultyBandFilter(GroupFilter):
    """Keeps a group if `low <= (b_1 ... b_T)^(1/T) <= high`, with b_i the confidence after the empty trace.

    The mean confidence in a token of the answer says how hard a question is before any trace is written. Above the
    band a trace has nothing to add, below it none helps yet. Filtering by difficulty as the policy finds it at the
    moment goes back to arXiv 2504.03380, which measures it by exact match; here no answer is checked.

    Args:
        low: smallest confidence, from 0 to 1.
        high: largest confidence, from 0 to 1.

    Raises:
        InputError: if the bounds are out of range or in the wrong order.

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
        check_share("high", self.high)

    def measure(self, groups: Groups) -> Tensor:
        """Geometric mean of the answer's confidences after the empty trace. -> [G]"""
        if groups.baseline_logprobs is None:
            raise InputError(f"{self} needs the answers' log-probs after the empty trace: pass baseline_logprobs.")
        return groups.per_group(masked_mean(groups.baseline_logprobs, groups.answer_mask, dim=1).exp())

    def keep(self, measured: Tensor) -> Tensor:
        """See `GroupFilter.keep`."""
        return (measured >= self.low) & (measured <= self.high)
