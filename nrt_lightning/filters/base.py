"""What every group filter shares."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import group_statistics
from nrt_lightning.structures import TensorStruct


@dataclass
class Groups(TensorStruct):
    """What a filter may look at: G groups with N rollouts in all."""

    rewards: Tensor  # [N] trace rewards
    group_ids: Tensor  # [N] 0..G-1, ascending
    logprobs: Tensor | None  # [N, T] of the answer after the trace; None where no filter reads them
    answer_mask: Tensor  # [N, T]
    baseline_logprobs: Tensor | None = None  # [N, T] of the answer after the empty trace, repeated for its group

    @property
    def answer_logprobs(self) -> Tensor:
        """Log-probs of the answers after their traces, [N, T].

        Raises:
            InputError: no filter declares that it needs them.
        """
        if self.logprobs is None:
            raise InputError(
                "The filter reads answer_logprobs, but its needs_answer_logprobs is False. Set it to True."
            )
        return self.logprobs

    def per_group(self, values: Tensor) -> Tensor:
        """One value of each group, `[N]` -> `[G]`, of values that are equal within their groups."""
        first = torch.ones_like(self.group_ids, dtype=torch.bool)  # [N]
        first[1:] = self.group_ids[1:] != self.group_ids[:-1]
        return values[first]

    def deviation(self) -> Tensor:
        """Unbiased standard deviation of the rewards of each group, exactly 0 where all are equal. [G]"""
        return self.per_group(group_statistics(self.rewards, self.group_ids, self.rewards.isfinite()).std)


class GroupFilter(ABC):
    """Decides which groups carry a loss.

    A filter works in two steps, so that several processes decide alike: each measures its own groups, the measured
    values of all are put together, and every process judges all of them. A filter with a memory (`observe`) then has
    the same memory everywhere, and a checkpoint of one process holds it.

    A filtered group has no loss of any term. Its place in denominators that count rollouts remains, so what a kept
    group weighs does not depend on how many others were filtered.

    A subclass implements `measure` and `keep`.
    """

    needs_baseline = False  # True: reads `Groups.baseline_logprobs`
    needs_answer_logprobs = True  # True: reads `Groups.answer_logprobs`
    needs_group = True  # whether it compares the rollouts of a group (K >= 2)

    @property
    def name(self) -> str:
        """The name used in logs, such as `zero_variance`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()[:-7]

    @abstractmethod
    def measure(self, groups: Groups) -> Tensor:
        """What the filter judges each group by. -> [G]"""

    @abstractmethod
    def keep(self, measured: Tensor) -> Tensor:
        """Which groups to keep, `[G]` bool, by what was measured of them, `[G]`."""

    def observe(self, measured: Tensor) -> None:  # noqa: B027  (most filters have no memory)
        """Take note of the groups of a batch, `[G]`, after they were judged; once a batch."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from a checkpoint."""


def apply_filters(filters: Sequence[GroupFilter], measured: Sequence[Tensor]) -> list[Tensor]:
    """The groups that each filter drops, `[G]` bool; a group counts for the first filter that drops it alone.

    Args:
        filters: in the order in which they are asked.
        measured: what each measured, `[G]`.

    Example:
        >>> from nrt_lightning.filters import DifficultyBandFilter, ZeroVarianceFilter
        >>> filters = [ZeroVarianceFilter(), DifficultyBandFilter(low=0.2)]
        >>> apply_filters(filters, [torch.tensor([0.0, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.5])])
        [tensor([ True, False, False]), tensor([False,  True, False])]
    """
    dropped: list[Tensor] = []
    for filter_, values in zip(filters, measured, strict=True):
        drops = ~filter_.keep(values)
        dropped.append(drops & ~torch.stack(dropped).any(0) if dropped else drops)
    return dropped
