"""Memory and operations of a computation whose tensors have no values."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
ARRANGED: Any = torch.ops.mkldnn if torch.backends.mkldnn.is_available() else None  # products with such weights
Shape = tuple[int, ...]
ATTENTION = "attention"  # kind of operations


class LiveMemory(TorchDispatchMode):
    """Tracks the tensors created and freed inside the context, notes their memory at its peaks, and counts operations.

    Every new storage counts once, with the shape of the tensor that created it. Views and tensors created before do
    not count. Matrix products and attention count with two operations per multiplication and addition.

    Args:
        part: names the part of the memory to which a tensor belongs.
        fractions: by part, the fraction on this device; 1 for other parts.

    Example:
        >>> import torch
        >>> with LiveMemory(lambda tensor: "all") as memory:
        ...     one = torch.ones(3, 2)
        ...     two = (one @ one.T).sum()
        >>> memory.peaks, dict(memory.flops)
        ({'': {'all': 64}}, {('', 'matrices'): 36.0})
    """

    def __init__(self, part: Callable[[Tensor], str], fractions: dict[str, float] | None = None) -> None:
        super().__init__()
        self.part, self.fractions = part, fractions or {}
        self.alive: dict[str, int] = defaultdict(int)  # bytes by part
        self.peaks: dict[str, dict[str, int]] = {}  # by phase
        self.phase = ""
        self.flops: dict[tuple[str, str], float] = defaultdict(float)  # by phase and kind
        self.known: set[int] = set()  # addresses of storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count its new tensors."""
        kwargs = kwargs or {}
        out = compute(func, args, kwargs)
        name = func._overloadpacket
        if formula := FORMULAS.get(name) or flop_registry.get(name):
            kind = ATTENTION if ATTENTION in str(name) else "matrices"
            self.flops[self.phase, kind] += formula(*args, **kwargs, out_val=out)
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
        size = round(tensor.numel() * tensor.element_size() * self.fractions.get(part, 1))
        self.known.add(storage._cdata)
        self.alive[part] += size
        weakref.finalize(storage, self.forget, storage._cdata, part, size)
        if sum(self.alive.values()) > sum(self.peaks.get(self.phase, {}).values()):
            self.peaks[self.phase] = {name: held for name, held in self.alive.items() if held}

    def forget(self, key: int, part: str, size: int) -> None:
        """Remove a freed storage."""
        self.known.discard(key)
        self.alive[part] -= size


def compute(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation. Those whose shapes depend on masks get them from masks with values."""
    name = func._overloadpacket
    if name in (aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._unsafe_index_put):
        args = (args[0], by_number(args[1]), *args[2:])
    elif name is aten.masked_select and not isinstance(args[1], FakeTensor):
        return args[0].new_empty(int(args[1].expand(torch.broadcast_shapes(args[0].shape, args[1].shape)).sum()))
    elif name is aten.masked_scatter_backward:
        return args[0].new_empty(args[2])
    elif ARRANGED is not None and name is ARRANGED._reorder_linear_weight:
        return torch.empty_like(args[0])
    elif name is aten._grouped_mm and isinstance(args[0], FakeTensor):  # known without values in bfloat16 alone
        a, b, ends = args[:3]
        return a.new_empty(*([len(ends)] if a.dim() == b.dim() == 2 else []), *a.shape[:-1], b.shape[-1])
    return func(*args, **kwargs)


def by_number(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Indices with masks replaced by the numbers of what they select."""
    found: list[Tensor | None] = []
    for index in indices:
        mask = index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor)
        found += index.nonzero().unbind(dim=1) if mask and index is not None else [index]
    return found


def shapes(formula: Callable[..., float]) -> Callable[..., float]:
    """A formula of shapes as one of tensors."""

    def of_tensors(*args: Any, out_val: Any = None, **kwargs: Any) -> float:
        return formula(*(tuple(x.shape) if isinstance(x, Tensor) else x for x in args))

    return of_tensors


@shapes
def added_product(total: Shape, a: Shape, b: Shape, *_: Any) -> float:
    """Operations of an in-place product."""
    return 2.0 * a[0] * a[1] * b[1]


@shapes
def arranged_product(x: Shape, weight: Shape, *_: Any) -> float:
    """Operations of a product with a weight that oneDNN has arranged."""
    return 2.0 * math.prod(x[:-1]) * weight[0] * weight[1]


@shapes
def grouped_product(a: Shape, b: Shape, *_: Any) -> float:
    """Operations of products by expert: every row meets one expert."""
    return 2.0 * math.prod(a[-2:]) * b[-1] if len(a) == 2 else 2.0 * a[-2] * math.prod(b)


@shapes
def attention(query: Shape, key: Shape, value: Shape, *_: Any) -> float:
    """Operations of scores and weighted sums, masked entries included, as the kernels compute them."""
    return 2.0 * math.prod(query[:3]) * key[2] * (query[3] + value[3])


@shapes
def attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any) -> float:
    """The scores again, and two products for each product of the forward pass."""
    return 2.0 * math.prod(query[:3]) * key[2] * (3 * query[3] + 2 * value[3])


FORMULAS = {
    aten.addmm_: added_product,
    aten._grouped_mm: grouped_product,
    aten._scaled_dot_product_flash_attention_for_cpu: attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
if ARRANGED is not None:
    FORMULAS[ARRANGED._linear_pointwise] = arranged_product
