"""Rollouts in a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch.distributed

from nrt_lightning.structures import OwnAnswers, Rollouts, Segments

PARTS = {"segments": Segments, "own_answers": OwnAnswers}


def kept(rollouts: Rollouts) -> dict[str, Any]:
    """Rollouts as plain tensors and numbers."""
    return dataclasses.asdict(rollouts.to("cpu"))


def restored(state: dict[str, Any]) -> Rollouts:
    """The rollouts that were kept."""
    parts = {name: kind(**state[name]) for name, kind in PARTS.items() if state[name] is not None}
    answered = None if state["answered"] is None else restored(state["answered"])
    return Rollouts(**state | parts | {"answered": answered})


def gathered(window: list[dict[str, Any]] | None) -> list[list[dict[str, Any]] | None]:
    """The windows of all processes; only one of them writes the checkpoint."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [window]
    windows: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(windows, window)
    return windows
