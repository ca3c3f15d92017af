"""Errors of devices that run out of memory."""

from __future__ import annotations

import torch

SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")  # of allocators and cuBLAS


def raise_out_of_memory(error: Exception) -> None:
    """Raise `torch.OutOfMemoryError` if an error says that a device or the host ran out of memory.

    On GPUs it is a `RuntimeError`, on CPUs no more than that: code that tries what a model can compute must not take
    it for an answer.

    >>> raise_out_of_memory(ValueError("no such mask"))
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if isinstance(error, RuntimeError | MemoryError) and any(sign in str(error).lower() for sign in SIGNS):
        raise torch.OutOfMemoryError(str(error)) from error
