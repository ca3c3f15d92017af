"""Attention whose gradient is made of matrix products."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IN_CACHE = 2**18  # scores that the gradient handles at a time: 1 MiB; more take up to twice as long each
LARGEST = 2**24  # scores that are held at once in float32; above, torch's kernel takes less memory


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """`scaled_dot_product_attention` with an additive mask, with a faster gradient on CPUs in bfloat16.

    There the gradient of torch's kernel takes up to twice as long as the same products one after the other. They are
    computed from the inputs, so that nothing more is kept, unless there are more than `LARGEST` scores.

    Args:
        query: [n, heads, L, size].
        key: [n, heads, S, size].
        value: [n, heads, S, size].
        mask: added to the scores, [n, 1, L, S]; every row has a value that is not -inf.
        dropout: probability with which attention weights are dropped.
        scale: of the scores; None for 1 / sqrt(size).

    Returns:
        [n, heads, L, size]

    Example:
        >>> x = torch.ones(1, 1, 2, 4)
        >>> attention(x, x, x, torch.zeros(1, 1, 2, 2)).shape
        torch.Size([1, 1, 2, 4])
    """
    learns = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if learns and slow and not dropout and math.prod(query.shape[:3]) * key.shape[2] <= LARGEST:
        found: Tensor = Products.apply(query, key, value, mask, query.shape[-1] ** -0.5 if scale is None else scale)
        return found
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)


class Products(torch.autograd.Function):
    """Attention by torch's kernel, its gradient by products."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        """[n, heads, L, size]"""
        out = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of queries, keys and values.

        Scores are a float32 product, as in torch. The gradient of the weights is a product in 16 bits, four times
        faster. Its weighted mean is that of the rounded values, so that it cancels where one weight is almost 1.
        """
        query, key, value, mask = ctx.saved_tensors
        size = max(1, IN_CACHE * len(query) // max(1, math.prod(query.shape[:3]) * key.shape[2]))
        rows = (x.split(size) for x in (query, key, value, mask.expand(len(query), -1, -1, -1), grad))
        found = [gradients(*part, scale=ctx.scale) for part in zip(*rows, strict=True)]
        of_query, of_key, of_value = (torch.cat(part) for part in zip(*found, strict=True))
        return of_query, of_key, of_value, None, None


def gradients(*inputs: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; `inputs` are these, the mask and the gradient of the output."""
    query, key, value, mask, grad = inputs
    weights = (query.float() @ key.float().mT).mul_(scale).add_(mask).softmax(dim=-1)  # [n, heads, L, S]
    of_weights = (grad @ value.mT).float()
    of_weights -= (of_weights * weights).sum(dim=-1, keepdim=True)
    of_scores = of_weights.mul_(weights).mul_(scale).to(query.dtype)
    return of_scores @ key, of_scores.mT @ query, weights.to(value.dtype).mT @ grad
