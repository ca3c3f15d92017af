"""Facts about the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

GIB = 2**30


@dataclass
class Machine:
    """What training can use."""

    gpu: str | None  # its name; None if there is none
    memory: int  # bytes, of the GPU or else of the machine
    cores: int
    bfloat16: bool  # True if its matrix products are fast
    gpus: int = 0

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        if torch.cuda.is_available():
            found = torch.cuda.get_device_properties(0)
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
            return cls(found.name, found.total_memory, cores, fast, torch.cuda.device_count())
        features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        fast = any(getattr(torch.cpu, name, bool)() for name in features)
        return cls(None, memory(), cores, fast)

    def __str__(self) -> str:
        size = f"{self.memory / GIB:.0f} GiB"
        if self.gpu is None:
            return f"CPU, {self.cores} cores, {size}"
        return f"{self.gpu}, {size}" + (f"; the first of {self.gpus}" if self.gpus > 1 else "")


def memory() -> int:
    """Memory of the machine in bytes; 8 GiB if the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 8 * GIB
