"""Questions that were left over when dropped groups were replaced, kept for the next replacement."""

from __future__ import annotations

import dataclasses
from typing import Any

from nrt_lightning.rollouts.joining import concat_groups
from nrt_lightning.structures import Prompts, Row, WindowStep

TENSORS = ("prompt_ids", "prompt_mask", "answer_ids", "answer_mask", "counted")


class Surplus:
    """The questions that this process keeps, oldest first.

    A run that is resumed inside a window samples it anew, so the questions before the window are kept, too.
    """

    def __init__(self) -> None:
        self.questions: list[Prompts] = []
        self.before: list[Prompts] = []  # when the current window began
        self.end = -1  # position in the run after the current window

    def begin(self, position: int, end: int) -> None:
        """Begin a window: its first micro-batch, and the one after it, as positions in the run."""
        if self.end > position:  # resumed inside this window
            self.questions = list(self.before)
        self.before, self.end = list(self.questions), end

    def keep(self, groups: list[Prompts]) -> None:
        """Keep the questions of these groups, without their traces."""
        for group in groups:
            self.questions.append(dataclasses.replace(group, rollouts=None, responses=None, window=WindowStep()))

    def take(self, count: int) -> list[Prompts]:
        """Up to `count` questions, which are then no longer kept."""
        taken, self.questions = self.questions[:count], self.questions[count:]
        return taken

    def state_dict(self) -> dict[str, Any]:
        """The questions as plain tensors and texts."""
        return {
            "questions": [plain(one) for one in self.questions],
            "before": [plain(one) for one in self.before],
            "end": self.end,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.questions = [restored(one) for one in state.get("questions", [])]
        self.before = [restored(one) for one in state.get("before", [])]
        self.end = state.get("end", -1)


def plain(question: Prompts) -> dict[str, Any]:
    """A question as tensors and texts."""
    tensors = {name: value.cpu() for name in TENSORS if (value := getattr(question, name)) is not None}
    return tensors | {"rows": [dataclasses.asdict(row) for row in question.rows]}


def restored(state: dict[str, Any]) -> Prompts:
    """The question of `plain`."""
    rows = [Row(**row | {"checks": tuple(row["checks"])}) for row in state["rows"]]
    return Prompts(**{name: state[name] for name in TENSORS if name in state}, rows=rows)


def joined(kept: list[Prompts], fresh: Prompts | None) -> Prompts:
    """Kept questions, then fresh rows, as one batch."""
    device = None if fresh is None else fresh.prompt_ids.device
    parts = [one if device is None else one.to(device) for one in kept] + ([] if fresh is None else [fresh])
    return parts[0] if len(parts) == 1 else concat_groups(parts)
