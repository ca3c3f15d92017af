"""Linear layers while tokens are sampled: what every token would convert again is converted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nrt_lightning.functional.precision import compute_dtype
from nrt_lightning.models.adapters.linear_layers import LowRankUpdate, low_rank_update

Product = Callable[[Tensor], Tensor]


@contextmanager
def decoding_weights(model: nn.Module) -> Iterator[None]:
    """A context in which the linear layers compute the same products faster. The weights must not change in it.

    On CPUs float32 weights are copied, because MKL multiplies few rows by a transposed matrix up to 2.5 times faster;
    low-rank updates are added to the copies. Elsewhere and in 16 bits updates stay apart, since the sum would round
    small ones away; their factors are converted and scaled once, and not for every token.

    Args:
        model: in eval mode, without gradient.
    """
    changed: list[Any] = []
    inside: set[nn.Module] = set()  # layers whose product is part of an adapter's
    try:
        for module in model.modules():
            update = low_rank_update(module) if hasattr(module, "lora_A") else None
            if update is not None and "forward" not in vars(module):
                inside.add(module.base_layer)  # type: ignore[arg-type]
                changed.append(module)
                module.forward = updated(module, update)
            elif module not in inside and (product := transposed(module)):
                changed.append(module)
                module.forward = product
        yield
    finally:
        for module in changed:
            del module.forward


def updated(layer: Any, update: LowRankUpdate) -> Product:
    """The product of an adapted layer."""
    a, b, base = update.a.detach(), update.b.detach() * update.scale, layer.base_layer
    if product := transposed(base, lambda: (b @ a).T):
        return product
    dtype = compute_dtype(a)
    down, up = a.to(dtype), b.to(dtype)

    def product_and_update(x: Tensor) -> Tensor:
        out = base(x)
        return (out + F.linear(F.linear(x.to(dtype), down), up)).to(out.dtype)

    return product_and_update


def transposed(layer: Any, update: Callable[[], Tensor] | None = None) -> Product | None:
    """The product with a transposed copy of a layer's weight; None if that is not faster, or not the same.

    Args:
        layer: any module.
        update: gives what is added to the copy, [in, out].
    """
    if type(layer) is not nn.Linear or "forward" in vars(layer) or layer.weight.device.type != "cpu":
        return None
    if layer.weight.dtype != torch.float32 or compute_dtype(layer.weight) != torch.float32:
        return None
    weight, bias = layer.weight.detach().T.contiguous(), layer.bias  # [in, out]
    if update is not None:
        weight += update()

    def product(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = torch.mm(rows, weight) if bias is None else torch.addmm(bias, rows, weight)
        return out.view(*x.shape[:-1], weight.shape[1])

    return product
