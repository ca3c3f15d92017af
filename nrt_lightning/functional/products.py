"""Matrix products of 16-bit weights."""

from __future__ import annotations

import torch
from torch import Tensor


def halves(a: Tensor, b: Tensor) -> torch.dtype | None:
    """The 16-bit dtype of one operand on a GPU, which multiplies such operands into float32; None otherwise."""
    found = [x.dtype for x in (a, b) if x.dtype in (torch.bfloat16, torch.float16)]
    return found[0] if found and a.is_cuda else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product in at least float32."""
    if half := halves(a, b):
        return torch.mm(a.to(half), b.to(half), out_dtype=torch.float32)
    exact = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(exact) @ b.to(exact)


def rounded_product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product with a 16-bit `b` for a sum that is rounded to 16 bits, summed in float32.

    CPUs multiply bfloat16 four times faster than float32, and have no product of it into float32 (torch 2.13).
    """
    if b.dtype == torch.bfloat16 and not b.is_cuda:
        return a.to(b.dtype) @ b
    return product(a, b)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a matrix product to `total`."""
    if halves(a, b):
        total += product(a, b)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))
