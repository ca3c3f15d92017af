"""Free memory and peak memory of a device."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
import torch.distributed as dist


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still allocate on a device; None if unknown.

    On a CPU, all processes are assumed to share this machine's memory.
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
    """Reset the peak on devices that allow it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Peak bytes: on a GPU of tensors since the last reset, on a CPU of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
