"""The precision in which probabilities are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or in float64 if they already are.

    Log-probabilities of half-precision models carry about three digits; sums, exponentials and group statistics of
    them are computed in float32.

    Args:
        values: any shape, floating, integer or bool.

    Returns:
        The same shape, float32 or float64.

    Example:
        >>> at_least_float32(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
        >>> at_least_float32(torch.zeros(2, dtype=torch.float64)).dtype
        torch.float64
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
