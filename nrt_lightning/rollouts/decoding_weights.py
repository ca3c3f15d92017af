"""Linear layers while tokens are sampled: what every token would convert again is converted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nrt_lightning.functional.precision import compute_dtype

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
            if hasattr(module, "lora_A") and plain_update(module):
                inside.add(module.base_layer)  # type: ignore[arg-type]
                changed.append(module)
                module.forward = updated(module)
            elif module not in inside and (product := transposed(module)):
                changed.append(module)
                module.forward = product
        yield
    finally:
        for module in changed:
            del module.forward


def plain_update(layer: Any) -> bool:
    """True if an adapter's layer computes `W x + scale * B (A x)` with the factors of one adapter."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    weights = [layer.get_base_layer(), *(layer.lora_A[name] for name in active)]
    return (
        len(active) == 1
        and not layer.disable_adapters
        and not layer.merged
        and not layer.lora_variant
        and all(isinstance(part, nn.Linear) for part in weights)
        and "forward" not in vars(layer)
    )


def updated(layer: Any) -> Product:
    """The product of an adapted layer."""
    [name] = [name for name in layer.active_adapters if name in layer.lora_A]
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]  # [r, in], [out, r]
    base, bias = layer.base_layer, layer.lora_B[name].bias
    if bias is None and (product := transposed(base, lambda: scale * (b @ a).T)):
        return product
    dtype = compute_dtype(a)
    down, up = a.detach().to(dtype), (scale * b.detach()).to(dtype)
    more = None if bias is None else (scale * bias.detach()).to(dtype)

    def product_and_update(x: Tensor) -> Tensor:
        out = base(x)
        return (out + F.linear(F.linear(x.to(dtype), down), up, more)).to(out.dtype)

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
