"""Memory of a computation as if its tensors had full sizes."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Tracks the tensors created and freed inside the context, and records their memory at its peak.

    Every new storage counts once, with the shape of the tensor that created it. Views and tensors created before do
    not count.

    Args:
        full: from small sizes to the full sizes that they stand for; other sizes stand for themselves.
        part: names the part of the memory to which a tensor belongs.
        fractions: by part, the fraction on this device; 1 for other parts.

    Example:
        >>> import torch
        >>> with LiveMemory({3: 1000}, lambda tensor: "all") as memory:
        ...     one = torch.ones(3, 2)  # stands for 1000 x 2
        ...     two = (one + 1).sum()  # another 8,000 bytes, and 4
        >>> memory.peak
        {'all': 16004}
    """

    def __init__(
        self, full: dict[int, int], part: Callable[[Tensor], str], fractions: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        self.full, self.part, self.fractions = full, part, fractions or {}
        self.alive: dict[str, int] = defaultdict(int)  # bytes by part
        self.peak: dict[str, int] = {}
        self.known: set[int] = set()  # addresses of storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count its new tensors."""
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
        size = round(self.bytes(tensor) * self.fractions.get(part, 1))
        self.known.add(storage._cdata)
        self.alive[part] += size
        weakref.finalize(storage, self.forget, storage._cdata, part, size)
        if sum(self.alive.values()) > sum(self.peak.values()):
            self.peak = {name: held for name, held in self.alive.items() if held}

    def bytes(self, tensor: Tensor) -> int:
        """Bytes of a tensor at its full size."""
        size = tensor.element_size()
        for small in tensor.shape:
            size *= self.full.get(small, small)
        return size

    def forget(self, key: int, part: str, size: int) -> None:
        """Remove a freed storage."""
        self.known.discard(key)
        self.alive[part] -= size
