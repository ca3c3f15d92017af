"""Memory of a device: what is free, and what has been taken up at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
import torch.distributed as dist


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still take up on a device; None where that is not known.

    On a CPU the processes share what is available; there is no knowing how many of them are on this machine, so all
    are taken to be.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    processes = dist.get_world_size() if dist.is_initialized() else 1
    return int(lines["MemAvailable"].split()[0]) * 1024 // processes


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, where the device allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on a GPU by tensors since the last reset, on a CPU by the process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
