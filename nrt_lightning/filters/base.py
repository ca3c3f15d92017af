"""Base class of the group filters."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.functional import group_statistics
from nrt_lightning.functional.validation import check_returned, declared_logprobs
from nrt_lightning.structures import TensorStruct


@dataclass
class Groups(TensorStruct):
    """The input of a filter: G groups with N rollouts in total."""

    rewards: Tensor  # [N] trace rewards
    group_ids: Tensor  # [N] 0..G-1, ascending
    logprobs: Tensor | None  # [N, T] of the answer after the trace; None where no filter reads them
    answer_mask: Tensor  # [N, T]
    baseline_logprobs: Tensor | None = None  # [N, T] of the answer after the empty trace, repeated within each group

    @property
    def answer_logprobs(self) -> Tensor:
        """Log-probs of the answers after their traces, [N, T].

        Raises:
            InputError: no filter declares that it needs them.
        """
        return declared_logprobs(self.logprobs, "filter")

    def per_group(self, values: Tensor) -> Tensor:
        """Select one value per group from values that are equal within each group. `[N]` -> `[G]`"""
        first = torch.ones_like(self.group_ids, dtype=torch.bool)  # [N]
        first[1:] = self.group_ids[1:] != self.group_ids[:-1]
        return values[first]

    def deviation(self) -> Tensor:
        """Unbiased standard deviation of the finite rewards of each group, exactly 0 if all are equal. `[G]`"""
        return self.per_group(group_statistics(self.rewards, self.group_ids, self.rewards.isfinite()).std)


class GroupFilter(ABC):
    """Selects the groups that carry a loss.

    Each process measures its groups (`measure`); the values of all processes are gathered, and every process decides on
    all groups (`keep`) and updates the filter's state (`observe`). The state is therefore the same on all processes.

    Dropped groups contribute to no term of the loss, but denominators that count rollouts still count them. The weight
    of a kept group does not depend on the number of dropped ones.

    A subclass implements `measure` and `keep`.
    """

    needs_baseline = False  # True: reads `Groups.baseline_logprobs`
    needs_answer_logprobs = True  # True: reads `Groups.answer_logprobs`
    needs_group = True  # whether it compares the rollouts of a group (K >= 2)

    @property
    def name(self) -> str:
        """The name in logs, such as `zero_variance`."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()
        return words.removesuffix("_filter")

    @abstractmethod
    def measure(self, groups: Groups) -> Tensor:
        """Compute the value by which each group is kept or dropped. -> `[G]`"""

    @abstractmethod
    def keep(self, values: Tensor) -> Tensor:
        """Decide from the values `[G]` of `measure` which groups to keep. -> `[G]` bool"""

    def observe(self, values: Tensor) -> None:  # noqa: B027  (most filters have no state)
        """Update the state with the values `[G]` of a batch. Called once per batch, after `keep`."""

    def state_dict(self) -> dict[str, Any]:
        """The state to store in a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore the state from a checkpoint."""


def measure_groups(filter_: GroupFilter, groups: Groups) -> Tensor:
    """The values by which a filter keeps groups or drops them. -> `[G]`

    Raises:
        InputError: they are not one for each group.
    """
    values = filter_.measure(groups)
    count = len(groups.per_group(groups.group_ids))
    check_returned(f"{type(filter_).__name__}.measure", values, [count], "one value for each group")
    return values


def names_of(filters: Sequence[GroupFilter]) -> list[str]:
    """The names of filters in logs; those of the same name are numbered.

    >>> from nrt_lightning.filters import DifficultyBandFilter
    >>> names_of([DifficultyBandFilter(low=0.2), DifficultyBandFilter(high=0.5)])
    ['difficulty_band', 'difficulty_band_2']
    """
    names = [filter_.name for filter_ in filters]
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True)]


def apply_filters(filters: Sequence[GroupFilter], values: Sequence[Tensor]) -> list[Tensor]:
    """Apply filters to the groups of a batch.

    Args:
        filters: the filters, in order.
        values: `[G]` from `measure`, for each filter.

    Returns:
        `[G]` bool for each filter, True for the groups that it drops and no earlier filter does.

    Raises:
        InputError: a filter does not decide on each group.

    Example:
        >>> from nrt_lightning.filters import DifficultyBandFilter, ZeroVarianceFilter
        >>> filters = [ZeroVarianceFilter(), DifficultyBandFilter(low=0.2)]
        >>> apply_filters(filters, [torch.tensor([0.0, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.5])])
        [tensor([ True, False, False]), tensor([False,  True, False])]
    """
    dropped: list[Tensor] = []
    for filter_, of_groups in zip(filters, values, strict=True):
        keeps = filter_.keep(of_groups)
        name = f"{type(filter_).__name__}.keep"
        check_returned(name, keeps, [len(of_groups)], "True for the groups to keep", boolean=True)
        drops = ~keeps
        dropped.append(drops & ~torch.stack(dropped).any(0) if dropped else drops)
    return dropped
