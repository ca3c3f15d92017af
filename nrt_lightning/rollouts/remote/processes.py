"""What one process does for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from nrt_lightning.errors import InputError


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def in_any(flag: bool, device: torch.device) -> bool:
    """True if the flag is true in any process. All processes must call it."""
    found = torch.tensor(float(flag), device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)


def by_first(work: Callable[[], Any]) -> Any:
    """Let the first process do something, and give what comes of it to all.

    Raises:
        InputError: where another process failed; the first raises what it was.
    """
    if world_size() == 1:
        return work()
    box: list[Any] = [None, ""]  # what came of it, what went wrong
    failure: Exception | None = None
    if rank() == 0:
        try:
            box[0] = work()
        except Exception as error:  # the others wait for an answer
            failure, box[1] = error, str(error) or type(error).__name__
    dist.broadcast_object_list(box)
    if box[1]:
        raise failure or InputError(box[1])
    return box[0]
