"""Scalars to log, with what combines those of several processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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

    @staticmethod
    @abstractmethod
    def combine(values: Tensor, counts: Tensor) -> Tensor:
        """The number of all P processes, of their values `[P]` and counts `[P]`."""


class Mean(Scalar):
    """A mean; processes are weighted by their counts.

    Example:
        >>> Mean.combine(torch.tensor([1.0, 4.0]), torch.tensor([2, 1]))
        tensor(2.)
    """

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

    @staticmethod
    @override
    def combine(values: Tensor, counts: Tensor) -> Tensor:
        return (values.where(counts > 0, 0) * counts).sum() / counts.sum().clamp(min=1e-9)


class Max(Scalar):
    """A maximum."""

    @staticmethod
    @override
    def combine(values: Tensor, counts: Tensor) -> Tensor:
        return values.max()


class Sum(Scalar):
    """A sum."""

    @staticmethod
    @override
    def combine(values: Tensor, counts: Tensor) -> Tensor:
        return values.sum()


def combined(
    scalars: dict[str, Scalar], device: torch.device, gather: Callable[[Tensor], Any] | None = None
) -> dict[str, Tensor]:
    """The scalars of all P processes together.

    Args:
        scalars: of this process; every process has the same names.
        device: of the message.
        gather: stacks a tensor of all processes, `[n]` -> `[P, n]`; None for one process.
    """
    if gather is None:
        return {name: scalar.value for name, scalar in scalars.items()}
    numbers = [number for scalar in scalars.values() for number in (scalar.value, scalar.count)]
    here = torch.stack([torch.as_tensor(number, dtype=torch.float32, device=device) for number in numbers])
    everywhere = gather(here).view(-1, len(scalars), 2)  # [P, scalars, 2]
    return {
        name: scalar.combine(found[:, 0], found[:, 1])
        for (name, scalar), found in zip(scalars.items(), everywhere.unbind(dim=1), strict=True)
    }
