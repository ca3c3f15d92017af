"""Matrix products: those of 16-bit weights into float32, and oneDNN's where MKL has no wide vectors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ONEDNN: Any = torch.ops.mkldnn
LEAST = 2**16  # numbers of a float32 matrix for which oneDNN is faster than MKL with narrow vectors


@cache
def mkl_is_narrow() -> bool:
    """True if MKL computes with vectors of 256 bits and oneDNN with those of 512: on CPUs with both, except Intel's."""
    wide = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    cpus = Path("/proc/cpuinfo")
    return wide and cpus.exists() and "GenuineIntel" not in cpus.read_text()


def onednn_is_faster(matrix: Tensor) -> bool:
    """True if oneDNN takes about half as long as MKL for products with this float32 matrix on a CPU."""
    return matrix.numel() >= LEAST and mkl_is_narrow()


def wide(a: Tensor, b: Tensor) -> bool:
    """True if oneDNN is faster for the product of these matrices, which it can read."""
    plain = type(a) is type(b) is Tensor and a.dtype == b.dtype == torch.float32 and a.device.type == "cpu"
    return plain and onednn_is_faster(b)


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` by oneDNN, which may have arranged the weight [out, in]."""
    return ONEDNN._linear_pointwise(x, weight, bias, "none", [], "")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of two operands of one dtype."""
    return onednn_linear(a, b.T) if wide(a, b) else a @ b


def halves(a: Tensor, b: Tensor) -> torch.dtype | None:
    """The 16-bit dtype of one operand on a GPU, which multiplies such operands into float32; None otherwise."""
    found = [x.dtype for x in (a, b) if x.dtype in (torch.bfloat16, torch.float16)]
    return found[0] if found and a.is_cuda else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product in at least float32."""
    if half := halves(a, b):
        return torch.mm(a.to(half), b.to(half), out_dtype=torch.float32)
    exact = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return matmul(a.to(exact), b.to(exact))


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
    elif wide(a, b):
        total += matmul(a, b)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))
