"""Drops groups whose rewards differ little, measured by what was usual so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least, check_share


@dataclass
class EMADeviationFilter(GroupFilter):
    """Keeps a group if `std(R_1..R_K) >= beta * EMA(std)`: the standard deviation filter of RLPR (arXiv 2506.18254).

    The moving average is over batches, of the mean standard deviation of all their groups, kept or not. As in the
    authors' code it starts as the plain mean of the batches `average_from` to `filter_from - 1`; from `filter_from`
    on it filters, each time by the average of the batches before: `EMA <- momentum EMA + (1 - momentum) mean(std)`.

    Args:
        beta: the authors use 0.5 for Qwen, 0.9 for Llama and 1.0 for Gemma.
        momentum: what stays of the average from one batch to the next. With a slow one, rewards whose spread falls
            fast are all filtered until the average has followed.
        average_from: the first batch, counted from 1, that the average takes in.
        filter_from: the first batch, counted from 1, that is filtered.

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
    batches: int = field(default=0, init=False, repr=False)  # seen so far
    total: float = field(default=0.0, init=False, repr=False)  # of the means before the average starts
    average: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)
        check_share("momentum", self.momentum)
        check_at_least("average_from", self.average_from, 1)
        check_at_least("filter_from", self.filter_from, self.average_from, above=True)

    def measure(self, groups: Groups) -> Tensor:
        """Standard deviation of the rewards. -> [G]"""
        return groups.deviation()

    def keep(self, measured: Tensor) -> Tensor:
        """See `GroupFilter.keep`."""
        if self.average is None:
            return torch.ones_like(measured, dtype=torch.bool)
        return measured >= self.beta * self.average

    def observe(self, measured: Tensor) -> None:
        """See `GroupFilter.observe`."""
        self.batches += 1
        if self.batches < self.average_from:
            return
        mean = float(measured.double().mean())
        if self.average is not None:
            self.average = self.momentum * self.average + (1 - self.momentum) * mean
            return
        self.total += mean
        if self.batches + 1 == self.filter_from:
            self.average = self.total / (self.filter_from - self.average_from)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"batches": self.batches, "total": self.total, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.batches, self.total, self.average = state["batches"], state["total"], state["average"]
