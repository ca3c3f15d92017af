"""The memory that a computation would hold if its sizes were others: every tensor is counted at its full size."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Follows the tensors that are made and freed inside, and keeps what was alive when that was most.

    Tensors that were there before do not count. A tensor counts by its storage, once, at the shape that it had when
    it was made; views cost nothing.

    Args:
        full: the full size of every small size that stands for another; other sizes are what they are.
        part: the part of the memory that a tensor belongs to.
        shares: of parts that are divided among devices, what is held here; the whole of others.

    Example:
        >>> import torch
        >>> with LiveMemory({3: 1000}, lambda tensor: "all") as memory:
        ...     one = torch.ones(3, 2)  # stands for 1000 x 2
        ...     two = (one + 1).sum()  # 8,000 bytes more, and 4
        >>> memory.peak
        {'all': 16004}
    """

    def __init__(
        self, full: dict[int, int], part: Callable[[Tensor], str], shares: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        self.full, self.part, self.shares = full, part, shares or {}
        self.alive: dict[str, int] = defaultdict(int)  # bytes by part
        self.peak: dict[str, int] = {}
        self.known: set[int] = set()  # storages, by their address as Python objects

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, then count what it made."""
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self.count(tensor)
        return out

    def count(self, tensor: Tensor) -> None:
        """Count a tensor until its storage is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.known or not storage.nbytes():
            return
        part = self.part(tensor)
        size = round(self.bytes(tensor) * self.shares.get(part, 1))
        self.known.add(storage._cdata)
        self.alive[part] += size
        weakref.finalize(storage, self.forget, storage._cdata, part, size)
        if sum(self.alive.values()) > sum(self.peak.values()):
            self.peak = {name: held for name, held in self.alive.items() if held}

    def bytes(self, tensor: Tensor) -> int:
        """What the tensor's storage would hold at its full size."""
        size = tensor.element_size()
        for small in tensor.shape:
            size *= self.full.get(small, small)
        return size

    def forget(self, key: int, part: str, size: int) -> None:
        """A storage is freed."""
        self.known.discard(key)
        self.alive[part] -= size
