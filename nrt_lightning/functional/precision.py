"""Floating-point precision of computations on probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Convert to float32, unless the values are float64.

    Half precision has about three digits, too few for sums, exponentials and group statistics of log-probs.

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


def compute_dtype(values: Tensor) -> torch.dtype:
    """The type in which matrix products with these values are computed: that of autocast, if it is enabled.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     compute_dtype(torch.zeros(2)), compute_dtype(torch.zeros(2, dtype=torch.float64))
    (torch.bfloat16, torch.float64)
    """
    kind = values.device.type
    if values.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return values.dtype
    return torch.get_autocast_dtype(kind)
