"""Work that process 0 does for all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from nrt_lightning.errors import InputError


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def in_any(flag: bool, device: torch.device) -> bool:
    """True if the flag is true in any process. All processes must call it."""
    found = torch.tensor(float(flag), device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)


def on_rank_zero(work: Callable[[], Any]) -> Any:
    """Run `work` on process 0 and return its result on all.

    Raises:
        InputError: on the other processes, if it failed; process 0 raises the original error.
    """
    if world_size() == 1:
        return work()
    box: list[Any] = [None, ""]  # result, error message
    failure: Exception | None = None
    if rank() == 0:
        try:
            box[0] = work()
        except Exception as error:  # the other processes wait for the broadcast
            failure, box[1] = error, str(error) or type(error).__name__
    dist.broadcast_object_list(box)
    if box[1]:
        raise failure or InputError(box[1])
    return box[0]
