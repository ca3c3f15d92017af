"""Masked sums and means, and packing of masked segments.

Values outside a mask, NaN and infinities included, change neither result nor gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_mask


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum the values where `mask` is True.

    Args:
        values: any shape.
        mask: bool, the shape of `values`.
        dim: the dimension to sum over; None sums everything.

    Returns:
        The sum; 0 with a zero gradient where the mask is empty.

    Raises:
        InputError: if the shapes differ or the mask is not bool.

    Example:
        >>> masked_sum(torch.tensor([1.0, float("nan"), 2.0]), torch.tensor([True, False, True]))
        tensor(3.)
    """
    check_mask(mask, values)
    kept = torch.where(mask, values, 0)  # not values * mask: NaN * 0 is NaN
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Average the values where `mask` is True.

    Args:
        values: any shape, floating.
        mask: bool, the shape of `values`.
        dim: the dimension to average over; None averages everything.

    Returns:
        The mean; 0 with a zero gradient where the mask is empty.

    Example:
        >>> masked_mean(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[True, True], [False, False]]), dim=1)
        tensor([2., 0.])
    """
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def pack_segment(values: Tensor, mask: Tensor, width: int | None = None) -> Tensor:
    """Move the masked values of each row to its left edge.

    Args:
        values: `[N, C]` of any type.
        mask: `[N, C]` bool, one segment per row; gaps within a segment are closed.
        width: width T of the result; None for the length of the longest segment.

    Returns:
        `[N, T]`, 0 after each segment. Differentiable.

    Raises:
        InputError: if a segment is longer than `width`, the shapes differ or the mask is not bool.

    Example:
        >>> values = torch.tensor([[9, 1, 2, 9], [9, 9, 9, 3]])
        >>> mask = torch.tensor([[False, True, True, False], [False, False, False, True]])
        >>> pack_segment(values, mask)
        tensor([[1, 2],
                [3, 0]])
    """
    check_mask(mask, values)
    longest = int(mask.sum(1).max()) if mask.numel() else 0
    if width is None:
        width = longest
    if longest > width:
        raise InputError(
            f"width={width} is too small: the longest segment has {longest} tokens. Set width to at least {longest}."
        )
    column = torch.where(mask, mask.cumsum(1) - 1, width)  # [N, C]; values outside the mask go to column T
    return values.new_zeros(values.shape[0], width + 1).scatter(1, column, values)[:, :width]


def unpack_segment(packed: Tensor, mask: Tensor) -> Tensor:
    """Move packed values back to their positions; the inverse of `pack_segment`.

    Args:
        packed: `[N, T]`, each row's segment at the left edge.
        mask: `[N, C]` bool, the positions of each segment.

    Returns:
        `[N, C]`, 0 outside the mask. Differentiable.

    Raises:
        InputError: if a segment is longer than T.

    Example:
        >>> mask = torch.tensor([[False, True, True, False], [False, False, False, True]])
        >>> unpack_segment(torch.tensor([[1, 2], [3, 0]]), mask)
        tensor([[0, 1, 2, 0],
                [0, 0, 0, 3]])
    """
    width = packed.shape[1]
    longest = int(mask.sum(1).max()) if mask.numel() else 0
    if longest > width:
        raise InputError(f"packed has {width} columns, but the longest segment of the mask has {longest} tokens.")
    if width == 0:
        return packed.new_zeros(mask.shape)
    column = (mask.cumsum(1) - 1).clamp(min=0)  # [N, C]
    return torch.where(mask, packed.gather(1, column), 0)
