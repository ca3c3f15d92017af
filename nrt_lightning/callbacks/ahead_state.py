"""Rollouts in a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

from nrt_lightning.structures import Conditioning, PolicyAnswers, Prompts, Rollouts, Scores, Segments, Steps

PARTS = {"segments": Segments, "policy_answers": PolicyAnswers, "old_scores": Scores, "conditioning": Conditioning}
PARTS |= {"steps": Steps}


def to_state(batch: Prompts) -> dict[str, Any]:
    """The rollouts of a micro-batch as plain tensors and numbers."""
    found = {"rollouts": batch.rollouts, "responses": batch.responses}
    return {name: None if value is None else dataclasses.asdict(value.to("cpu")) for name, value in found.items()}


def restore_state(batch: Prompts, state: dict[str, Any]) -> None:
    """Put the rollouts of `to_state` into a micro-batch."""
    for name, fields in state.items():
        if fields is not None:
            parts = {part: kind(**fields[part]) for part, kind in PARTS.items() if fields[part] is not None}
            setattr(batch, name, Rollouts(**fields | parts).to(batch.prompt_ids.device))
