"""The processes of a run, as the parts of a training step see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class Processes:
    """Reductions over the processes of a run.

    Args:
        strategy: of Lightning's trainer; None for a single process.

    Example:
        >>> one = Processes()
        >>> one.rank, one.largest(3), one.gather(torch.tensor([1, 2]))
        (0, 3, tensor([[1, 2]]))
    """

    def __init__(self, strategy: Any = None) -> None:
        self.strategy = strategy
        self.rank: int = getattr(strategy, "global_rank", 0)
        self.count: int = getattr(strategy, "world_size", 1)

    def largest(self, number: int) -> int:
        """The largest of a number over all processes."""
        if self.count == 1:
            return number
        return int(self.strategy.reduce(torch.tensor(number, device=self.strategy.root_device), reduce_op="max"))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes, without gradient."""
        if self.count == 1:
            return values
        return self.strategy.reduce(values.detach().clone(), reduce_op="mean")

    def gather(self, values: Tensor) -> Tensor:
        """The tensors of all processes, `[...]` -> `[processes, ...]`, without gradient."""
        if self.count == 1:
            return values.detach().unsqueeze(0)
        return self.strategy.all_gather(values.detach())


def gather_objects(item: Any) -> list[Any]:
    """The objects of all processes, by rank; all processes call it together.

    >>> gather_objects({"a": 1})
    [{'a': 1}]
    """
    if not dist.is_available() or not dist.is_initialized():
        return [item]
    items: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items


def gather_in_order(items: Sequence[T]) -> list[T]:
    """The items of all processes, of which each holds those of every n-th row, in the order of the rows.

    All processes call it together; they may have different numbers of items.

    >>> gather_in_order(["a", "b"])
    ['a', 'b']
    """
    parts = gather_objects(list(items))
    longest = max(len(part) for part in parts)
    return [part[index] for index in range(longest) for part in parts if index < len(part)]
