"""Padding of tensors to a common width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_widest(
    tensors: Sequence[Tensor], *, left: bool = False, value: float = 0, min_width: int = 0
) -> list[Tensor]:
    """Pad the last dimension of every tensor to the width of the widest.

    Args:
        tensors: [..., W_i] each.
        left: pad on the left instead of the right.
        value: fills the padding.
        min_width: smallest width of the result.

    >>> pad_to_widest([torch.tensor([1, 2]), torch.tensor([3])], left=True)
    [tensor([1, 2]), tensor([0, 3])]
    """
    width = max(min_width, *(tensor.shape[-1] for tensor in tensors))
    missing = [width - tensor.shape[-1] for tensor in tensors]
    return [F.pad(t, (n, 0) if left else (0, n), value=value) for t, n in zip(tensors, missing, strict=True)]


def pad_rows(
    rows: Sequence[Tensor], *, left: bool = False, value: float = 0, min_width: int = 0
) -> tuple[Tensor, Tensor]:
    """Stack rows of different lengths. Returns the padded tensor and the mask of its elements, both [M, W].

    Args:
        rows: M tensors [W_i].
        left: pad on the left instead of the right.
        value: fills the padding.
        min_width: smallest width W.

    >>> pad_rows([torch.tensor([1, 2]), torch.tensor([3])])[1]
    tensor([[ True,  True],
            [ True, False]])
    """
    masks = pad_to_widest([torch.ones_like(row, dtype=torch.bool) for row in rows], left=left, min_width=min_width)
    return torch.stack(pad_to_widest(rows, left=left, value=value, min_width=min_width)), torch.stack(masks)
