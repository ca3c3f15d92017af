"""Checkpoints of sharded runs: one file of whole weights, or a directory with a file for each process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from nrt_lightning.models.policy.fingerprint import check_same_policy

NOTES = "meta.pt"  # what a directory holds beside weights and optimizer, as Lightning writes it
WEIGHTS = ("state_dict.", "model.")  # before the names of weights, from ModelParallelStrategy and from FSDPStrategy


def read_notes(path: str | Path) -> dict[str, Any]:
    """All of a checkpoint but the values of its tensors."""
    place = Path(path)
    return torch.load(place / NOTES if place.is_dir() else place, map_location="meta", mmap=True, weights_only=True)


def check_before_loading(strategy: Any) -> None:
    """Let a strategy that shards refuse a checkpoint of another policy before it loads it.

    Such a strategy reads weights and optimizer before any hook sees the checkpoint, and fails where shapes differ.
    """
    if "load_checkpoint" in vars(strategy):
        return
    load = strategy.load_checkpoint

    def checked(checkpoint_path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if Path(checkpoint_path).exists():
            noted = read_notes(checkpoint_path).get("nrt_lightning", {})
            check_same_policy(noted.get("policy", {}), strategy.lightning_module.policy)
        return load(checkpoint_path, *args, **kwargs)

    strategy.load_checkpoint = checked


def read_sharded(directory: Path) -> dict[str, Any]:
    """A checkpoint of several files as one of one file, without the optimizer. Needs no other processes."""
    reader = dcp.FileSystemReader(directory)
    held: dict[str, Any] = reader.read_metadata().state_dict_metadata
    weights = {
        name: torch.empty(info.size, dtype=info.properties.dtype)
        for name, info in held.items()
        if name.startswith(tuple(f"{prefix}policy." for prefix in WEIGHTS))
    }
    dcp.load(weights, storage_reader=reader, no_dist=True)
    saved = torch.load(directory / NOTES, map_location="cpu", weights_only=True)
    return saved | {"state_dict": {name.partition(".")[2]: weight for name, weight in weights.items()}}
