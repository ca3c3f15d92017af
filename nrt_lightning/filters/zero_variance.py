"""Drops groups whose rewards are all equal."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least


@dataclass
class ZeroVarianceFilter(GroupFilter):
    """Keeps a group if its rewards differ: `std(R_1..R_K) > tolerance`.

    Where all rewards are equal every advantage is 0 and the traces teach nothing. DAPO's dynamic sampling (arXiv
    2503.14476) drops such groups and samples others in their place. Under NRT they have an answer and a marker term,
    which a dropped group loses too.

    Args:
        tolerance: largest standard deviation that counts as none. Equal traces may score differently in the last
            digits, and an advantage that is divided by the standard deviation makes much of that.

    Raises:
        InputError: if `tolerance` is negative.

    Example:
        >>> import torch
        >>> ZeroVarianceFilter().keep(torch.tensor([0.0, 1e-8, 0.1]))
        tensor([False, False,  True])
    """

    needs_answer_logprobs = False
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_at_least("tolerance", self.tolerance, 0)

    def measure(self, groups: Groups) -> Tensor:
        """Standard deviation of the rewards. -> [G]"""
        return groups.deviation()

    def keep(self, measured: Tensor) -> Tensor:
        """See `GroupFilter.keep`."""
        return measured > self.tolerance
