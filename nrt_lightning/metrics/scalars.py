"""Scalars to log, with what combines those of several processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional import masked_mean


@dataclass
class Scalar(ABC):
    """A number of this process.

    Args:
        value: a scalar.
        count: number of elements that it is the mean of.
    """

    value: Tensor
    count: Tensor | float = 1.0

    @abstractmethod
    def combine(self, values: Tensor, counts: Tensor) -> Tensor:
        """The number of all P processes, given their values `[P]` and counts `[P]`."""


class Mean(Scalar):
    """A mean. Processes are weighted by their counts."""

    @classmethod
    def of(cls, values: Tensor, mask: Tensor | None = None) -> Mean:
        """The mean of `values` where `mask` is True; 0 with a count of 0 where it is True nowhere.

        Example:
            >>> Mean.of(torch.tensor([1, 3, 9]), torch.tensor([True, True, False]))
            Mean(value=tensor(2.), count=tensor(2))
        """
        values = values.float() if not values.is_floating_point() else values
        mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        return cls(masked_mean(values, mask), mask.sum())

    @override
    def combine(self, values: Tensor, counts: Tensor) -> Tensor:
        return (values.where(counts > 0, 0) * counts).sum() / counts.sum().clamp(min=1e-9)


class Max(Scalar):
    """A maximum."""

    @override
    def combine(self, values: Tensor, counts: Tensor) -> Tensor:
        return values.max()


class Sum(Scalar):
    """A sum."""

    @override
    def combine(self, values: Tensor, counts: Tensor) -> Tensor:
        return values.sum()


def combined(scalars: dict[str, Scalar], device: torch.device, processes: int) -> dict[str, Tensor]:
    """The scalars of all processes together. Every process gives the same names; one message on `device` is sent."""
    if processes == 1:
        return {name: scalar.value for name, scalar in scalars.items()}
    numbers = [number for scalar in scalars.values() for number in (scalar.value, scalar.count)]
    here = torch.stack([torch.as_tensor(number, dtype=torch.float32, device=device) for number in numbers])
    everywhere = [torch.empty_like(here) for _ in range(processes)]
    torch.distributed.all_gather(everywhere, here)
    pairs = torch.stack(everywhere).view(processes, -1, 2).unbind(dim=1)  # [P, 2] for each scalar
    return {
        name: scalar.combine(*pair.unbind(dim=1)) for (name, scalar), pair in zip(scalars.items(), pairs, strict=True)
    }
