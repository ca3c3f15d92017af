"""Statistics over groups of rows. Rows with the same group id form a group, in any order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional.precision import at_least_float32
from nrt_lightning.functional.validation import check_same_shape


@dataclass
class GroupStatistics:
    """Statistics over the valid rows of each group, repeated for every row of the group.

    Args:
        mean: mean of the group; 0 without a valid row.
        std: unbiased standard deviation; exactly 0 if all values are equal or fewer than two rows are valid.
        count: number of valid rows.
        centered: value minus mean; exactly 0 if all values of the group are equal, and 0 for rows that are not valid.
    """

    mean: Tensor  # [N] or [N, T], as the values
    std: Tensor  # [N] or [N, T]
    count: Tensor  # [N] or [N, T]
    centered: Tensor  # [N] or [N, T]


def group_statistics(values: Tensor, group_ids: Tensor, valid: Tensor | None = None) -> GroupStatistics:
    """Compute mean, unbiased standard deviation and count of each group.

    Values are shifted by the minimum of their group and divided by its range, and the variance takes a second pass. The
    result is exact for equal values, accurate for values that differ in their last digits, and does not overflow near
    the largest float.

    Args:
        values: `[N]`, or `[N, T]` to treat each column separately.
        group_ids: `[N]` integers, any values in any order.
        valid: bool, the shape of `values`; False excludes a value, whatever it is. None includes all.

    Returns:
        The statistics in the shape of `values`, in float32 or float64.

    Raises:
        InputError: if the numbers of rows differ.

    Example:
        >>> stats = group_statistics(torch.tensor([1.0, 5.0, 3.0, 5.0]), torch.tensor([7, 2, 7, 2]))
        >>> stats.mean, stats.std
        (tensor([2., 5., 2., 5.]), tensor([1.4142, 0.0000, 1.4142, 0.0000]))
    """
    if group_ids.shape != values.shape[:1]:
        raise InputError(f"group_ids has shape {list(group_ids.shape)} but values has {len(values)} rows.")
    values = at_least_float32(values)
    valid = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
    if not len(values):
        return GroupStatistics(values, values, valid.long(), values)
    row = torch.unique(group_ids, return_inverse=True)[1]  # [N] 0..G-1; ids need not be small or consecutive
    shape = (int(row.max()) + 1, *values.shape[1:])  # [G] or [G, T]
    index = row.view(-1, *[1] * (values.dim() - 1)).expand_as(values)

    def total(x: Tensor) -> Tensor:  # sum over the group of each row
        return x.new_zeros(shape).index_add(0, row, x)[row]

    def extreme(x: Tensor, reduce: str) -> Tensor:  # minimum or maximum over the group of each row
        return x.new_zeros(shape).scatter_reduce(0, index, x, reduce, include_self=False)[row]

    count = total(valid.long())
    divisor = count.clamp(min=1)
    infinity = torch.full_like(values, float("inf"))
    low = torch.where(count > 0, extreme(torch.where(valid, values, infinity), "amin"), 0)
    shifted = torch.where(valid, values - low, 0)
    spread = extreme(shifted, "amax")
    spread = torch.where(spread > 0, spread, 1)
    unit = shifted / spread  # 0..1
    unit_mean = total(unit) / divisor
    unit_centered = torch.where(valid, unit - unit_mean, 0)
    unit_std = (total(unit_centered**2) / (count - 1).clamp(min=1)).sqrt()
    return GroupStatistics(low + unit_mean * spread, unit_std * spread, count, unit_centered * spread)


def group_normalize(
    values: Tensor,
    group_ids: Tensor,
    valid: Tensor | None = None,
    *,
    center: bool = True,
    scale: bool = True,
    eps: float = 0.0,
) -> Tensor:
    """Center and scale values within their groups: `(v - mean) / (std + eps)`.

    Args:
        values: `[N]`.
        group_ids: `[N]` integers, any values in any order.
        valid: `[N]` bool; False excludes a row and gives it 0. None includes all rows.
        center: subtract the mean of the group.
        scale: divide by the unbiased standard deviation of the group; the result is 0 where that is exactly 0.
        eps: added to the standard deviation.

    Returns:
        `[N]` in float32 or float64; 0 for a group of one if centered or scaled.

    Example:
        >>> group_normalize(torch.tensor([1.0, 3.0, 4.0]), torch.tensor([0, 0, 1]))
        tensor([-0.7071,  0.7071,  0.0000])
    """
    stats = group_statistics(values, group_ids, valid)
    result = stats.centered if center else at_least_float32(values)
    if scale:
        usable = stats.std > 0
        result = torch.where(usable, result / torch.where(usable, stats.std + eps, 1), 0)
    return result if valid is None else torch.where(valid, result, 0)


def group_logsumexp(values: Tensor, group_ids: Tensor) -> Tensor:
    """`log sum_j exp(v_j)` over the finite values of each row's group, repeated for every row.

    Args:
        values: `[N]`; values that are not finite are excluded.
        group_ids: `[N]` integers, any values in any order.

    Returns:
        `[N]` in float32 or float64; minus infinity for a group without a finite value.

    Example:
        >>> group_logsumexp(torch.tensor([0.5, 0.25, float("-inf")]).log(), torch.tensor([0, 0, 0])).exp()
        tensor([0.7500, 0.7500, 0.7500])
    """
    check_same_shape("group_ids", group_ids, "values", values)
    values = at_least_float32(values)
    if not len(values):
        return values
    row = torch.unique(group_ids, return_inverse=True)[1]  # [N] 0..G-1
    kept = torch.where(values.isfinite(), values, float("-inf"))
    highest = kept.new_full((int(row.max()) + 1,), float("-inf")).scatter_reduce(0, row, kept, "amax")  # [G]
    shift = torch.where(highest.isfinite(), highest, 0)[row]  # [N]; the largest term becomes exp(0)
    total = torch.zeros_like(highest).index_add(0, row, (kept - shift).exp())[row]
    return total.log() + shift
