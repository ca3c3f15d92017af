"""Filter for groups with equal rewards."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least


@dataclass
class ZeroVarianceFilter(GroupFilter):
    """Keeps a group if `std(R_1..R_K) > tolerance`.

    If all rewards are equal, all advantages are 0 and the traces carry no signal. DAPO's dynamic sampling (arXiv
    2503.14476) replaces such groups. Under NRT their answer and marker terms are dropped too.

    Args:
        tolerance: largest standard deviation that counts as 0. Equal traces can score differently in the last digits, a
            difference that dividing by the standard deviation would magnify.

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
        """Standard deviation of the rewards. -> `[G]`"""
        return groups.deviation()

    def keep(self, values: Tensor) -> Tensor:
        """Keep values above `tolerance`. `[G]` -> `[G]` bool"""
        return values > self.tolerance
