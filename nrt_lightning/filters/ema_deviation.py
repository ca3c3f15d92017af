"""Filter by the standard deviation of the rewards, relative to its moving average."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least, check_fraction


@dataclass
class EMADeviationFilter(GroupFilter):
    """Keeps a group if `std(R_1..R_K) >= beta * EMA(std)`: the standard deviation filter of RLPR (arXiv 2506.18254).

    The average is over batches, of the mean standard deviation of all their groups, kept or dropped: `EMA <- momentum
    EMA + (1 - momentum) mean(std)`. As in the authors' code, it starts as the plain mean of the batches `average_from`
    to `filter_from - 1`. A batch is filtered by the average of the batches before it.

    Args:
        beta: factor of the average; the authors use 0.5 for Qwen, 0.9 for Llama and 1.0 for Gemma.
        momentum: momentum of the average. If it is large and the deviations fall fast, all groups are dropped until the
            average has fallen too.
        average_from: the first batch of the average, counted from 1.
        filter_from: the first batch that is filtered, counted from 1.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> ema = EMADeviationFilter(beta=0.5, average_from=1, filter_from=2)
        >>> first = torch.tensor([0.1, 0.3])
        >>> ema.keep(first)
        tensor([True, True])
        >>> ema.observe(first)
        >>> ema.keep(torch.tensor([0.09, 0.11]))
        tensor([False,  True])
    """

    beta: float = 0.5
    momentum: float = 0.99
    average_from: int = 6
    filter_from: int = 11
    batches: int = field(default=0, init=False, repr=False)  # number of batches observed
    total: float = field(default=0.0, init=False, repr=False)  # sum of the means before `filter_from`
    average: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)
        check_fraction("momentum", self.momentum)
        check_at_least("average_from", self.average_from, 1)
        check_at_least("filter_from", self.filter_from, self.average_from, above=True)

    def measure(self, groups: Groups) -> Tensor:
        """Standard deviation of the rewards. -> `[G]`"""
        return groups.deviation()

    def keep(self, values: Tensor) -> Tensor:
        """Keep values of at least `beta` times the average; all before `filter_from`. `[G]` -> `[G]` bool"""
        if self.average is None:
            return torch.ones_like(values, dtype=torch.bool)
        return values >= self.beta * self.average

    def observe(self, values: Tensor) -> None:
        """Add the mean of the values `[G]` of a batch to the average, if it is finite."""
        self.batches += 1
        if self.batches < self.average_from:
            return
        mean = float(values.double().mean())
        if not math.isfinite(mean):  # it would stay in the average
            return
        if self.average is not None:
            self.average = self.momentum * self.average + (1 - self.momentum) * mean
            return
        self.total += mean
        if self.batches + 1 == self.filter_from:
            self.average = self.total / (self.filter_from - self.average_from)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of batches."""
        return {"batches": self.batches, "total": self.total, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the average and the number of batches."""
        self.batches, self.total, self.average = state["batches"], state["total"], state["average"]
