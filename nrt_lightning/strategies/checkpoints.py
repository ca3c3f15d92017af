"""Checkpoints of sharded runs: one file with whole weights, or a directory with a file per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

METADATA = "meta.pt"  # everything but weights and optimizer in a directory that Lightning wrote
WEIGHTS = ("state_dict.", "model.")  # prefixes of weights, from ModelParallelStrategy and from FSDPStrategy


def read_metadata(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint without the values of its tensors."""
    return torch.load(path / METADATA if path.is_dir() else path, map_location="meta", mmap=True, weights_only=True)


def read_sharded(directory: Path) -> dict[str, Any]:
    """Read a checkpoint directory as if it were one file, without the optimizer. Needs no other processes."""
    reader = dcp.FileSystemReader(directory)
    held: dict[str, Any] = reader.read_metadata().state_dict_metadata
    weights = {
        name: torch.empty(info.size, dtype=info.properties.dtype)
        for name, info in held.items()
        if name.startswith(tuple(f"{prefix}policy." for prefix in WEIGHTS))
    }
    dcp.load(weights, storage_reader=reader, no_dist=True)
    saved = torch.load(directory / METADATA, map_location="cpu", weights_only=True)
    return saved | {"state_dict": {name.partition(".")[2]: weight for name, weight in weights.items()}}
