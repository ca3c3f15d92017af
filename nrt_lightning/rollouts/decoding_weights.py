"""Linear layers while tokens are sampled: what every token would convert again is converted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nrt_lightning.functional.precision import compute_dtype
from nrt_lightning.functional.products import ONEDNN, onednn_is_faster, onednn_linear
from nrt_lightning.models.adapters.linear_layers import LowRankUpdate, low_rank_update

Product = Callable[[Tensor], Tensor]


@contextmanager
def decoding_weights(model: nn.Module) -> Iterator[None]:
    """A context in which the linear layers compute the same products faster. The weights must not change in it.

    On CPUs weights are copied, and in float32 low-rank updates are added to the copy. oneDNN arranges a matrix anew in
    every product, which is done once: in bfloat16, and in float32 where it is faster than MKL. Otherwise a float32
    matrix is transposed, by which MKL multiplies few rows up to 2.5 times faster.

    On other devices and in 16 bits updates stay apart, since the sum would round small ones away. Their factors are
    converted and scaled once, and not for every token.

    Args:
        model: in eval mode, without gradient.
    """
    changed: list[Any] = []
    inside: set[nn.Module] = set()  # parts of adapted layers, whose product is the adapted layer's
    try:
        for module in model.modules():
            update = low_rank_update(module) if hasattr(module, "lora_A") else None
            if update is not None and "forward" not in vars(module):
                inside.update(part for part in module.modules() if part is not module)
                changed.append(module)
                module.forward = updated(module, update)
            elif module not in inside and (product := merged(module) or arranged(module)):
                changed.append(module)
                module.forward = product
        yield
    finally:
        for module in changed:
            del module.forward


def updated(layer: Any, update: LowRankUpdate) -> Product:
    """The product of an adapted layer."""
    a, b, base = update.a.detach(), update.b.detach() * update.scale, layer.base_layer
    if product := merged(base, lambda: b @ a):
        return product
    dtype = compute_dtype(a)
    down, up = a.to(dtype), b.to(dtype)
    if product := arranged(base, down, up):
        return product
    of_base = arranged(base) or base

    def product_and_update(x: Tensor) -> Tensor:
        out = of_base(x)
        return (out + F.linear(F.linear(x.to(dtype), down), up)).to(out.dtype)

    return product_and_update


def copied(layer: Any, dtype: torch.dtype) -> bool:
    """True for a plain linear layer on a CPU that computes in this type."""
    plain = type(layer) is nn.Linear and "forward" not in vars(layer) and layer.weight.device.type == "cpu"
    return plain and compute_dtype(layer.weight) == dtype


def merged(layer: Any, update: Callable[[], Tensor] | None = None) -> Product | None:
    """The product with a copy of a layer's float32 weight and its update; None if that is not faster, or not the same.

    Args:
        layer: any module.
        update: gives what is added to the copy, [out, in].
    """
    if not copied(layer, torch.float32) or layer.weight.dtype != torch.float32:
        return None
    weight, bias = layer.weight.detach(), layer.bias  # [out, in]
    if update is not None:
        weight = weight + update()
    if onednn_is_faster(weight):
        matrix = ONEDNN._reorder_linear_weight(weight)
        return lambda x: onednn_linear(x, matrix, bias)
    weight = weight.T.contiguous()  # [in, out]

    def product(x: Tensor) -> Tensor:
        out = x @ weight
        return out if bias is None else out.add_(bias)

    return product


def arranged(layer: Any, down: Tensor | None = None, up: Tensor | None = None) -> Product | None:
    """The product with a copy of a layer's bfloat16 weight as oneDNN arranges it; None if that is not the same.

    An update is part of the product: `[x, down x] [weight, up]`.

    Args:
        layer: any module.
        down: the inner factor of an update, [r, in].
        up: its outer factor, [out, r].
    """
    if not copied(layer, torch.bfloat16) or not arranges() or (down is not None and down.dtype != torch.bfloat16):
        return None
    arrange = ONEDNN._reorder_linear_weight
    weight, bias = layer.weight.detach().to(torch.bfloat16), layer.bias  # [out, in]
    bias = None if bias is None else bias.to(torch.bfloat16)
    if down is None or up is None:
        matrix = arrange(weight)
        return lambda x: onednn_linear(x.to(torch.bfloat16), matrix, bias)
    inner, matrix = arrange(down), arrange(torch.cat([weight, up], dim=1))  # [r, in], [out, in + r]

    def product(x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        return onednn_linear(torch.cat([x, onednn_linear(x, inner)], dim=-1), matrix, bias)

    return product


def arranges() -> bool:
    """True if oneDNN computes products in bfloat16 here."""
    return torch.backends.mkldnn.is_available() and ONEDNN._is_mkldnn_bf16_supported()
