"""Checkpoints of sharded runs: one file with whole weights, or a directory with a file per process."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.fabric.utilities.cloud_io import _load as load_anywhere

METADATA = "meta.pt"  # everything but weights and optimizer in a directory that Lightning wrote
WEIGHTS = ("state_dict.", "model.")  # prefixes of weights, from ModelParallelStrategy and from FSDPStrategy


def read_metadata(path: Path, *, weights_only: bool = True) -> dict[str, Any]:
    """The contents of a checkpoint without the values of its tensors.

    Args:
        path: a file, or a directory of a sharded run.
        weights_only: False also builds objects of other classes, which runs the file's code.
    """
    file = path / METADATA if path.is_dir() else path
    return torch.load(file, map_location="meta", mmap=zipfile.is_zipfile(file), weights_only=weights_only)


def read_settings(checkpoint: Any, *, weights_only: bool = True) -> dict[str, Any]:
    """The settings of the module in a checkpoint: a path, also of another file system, or an open file."""
    if hasattr(checkpoint, "seek"):
        saved = torch.load(checkpoint, map_location="meta", weights_only=weights_only)
        checkpoint.seek(0)
    elif remote(checkpoint):
        saved = read_remote(str(checkpoint), weights_only=weights_only)
    else:
        saved = read_metadata(Path(checkpoint), weights_only=weights_only)
    return saved.get("hyper_parameters", {}) if isinstance(saved, dict) else {}


def remote(path: Any) -> bool:
    """True for a path of another file system: `s3://`, `memory://`, `file://`."""
    return "://" in str(path)


def read_remote(path: str, *, weights_only: bool = True) -> Any:
    """The contents of a checkpoint of another file system."""
    return load_anywhere(path, map_location="cpu", weights_only=weights_only)


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


def untrusted(where: str, error: Exception) -> str:
    """The message for a checkpoint that holds objects of other classes."""
    problem = " ".join(str(error).split())[:200]
    return (
        f"{where} holds more than tensors and plain values, and building it would run its code, so it is not read "
        f"({problem}). If you trust it, give weights_only=False."
    )
