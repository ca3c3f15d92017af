"""Questions and their answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from nrt_lightning.structures.base import TensorStruct

if TYPE_CHECKING:
    from nrt_lightning.structures.rollouts import Rollouts


@dataclass
class Row:
    """One question with its reference answer, as read from a source."""

    id: str
    messages: list[dict[str, str]]  # the conversation up to and with the question: {"role": ..., "content": ...}
    answer: str | None = None  # None where only prediction is wanted
    origin: str = ""  # where it was read, for errors: "train.jsonl:12"
    checks: tuple[str, ...] = ()  # pieces that a right answer holds, in this order; empty where only the whole counts

    @property
    def question(self) -> str:
        """The text of the last turn before the answer."""
        return self.messages[-1]["content"]


@dataclass
class WindowStep:
    """The place of a micro-batch in its window: `index` of `size`, in round `epoch` of `epochs`.

    Every micro-batch of a window carries ALL prompts of the window; the rollout callback samples for them at once
    and hands out slice `index` of `size` at each step. The same rollouts are gone through `epochs` times.
    """

    index: int = 0
    size: int = 1
    epoch: int = 0
    epochs: int = 1

    @property
    def first(self) -> bool:
        """Whether the window begins here."""
        return self.index == 0 and self.epoch == 0


@dataclass
class Prompts(TensorStruct):
    """Questions and reference answers of one micro-batch (of one window where `window.size > 1`)."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    answer_ids: Tensor  # [B, T] right-padded, ends with the end token; T = 0 without answers
    answer_mask: Tensor  # [B, T]
    rows: list[Row] = field(default_factory=list)  # B of them: the texts these ids came from
    window: WindowStep = field(default_factory=WindowStep)
    counted: Tensor | None = None  # [B] False for a row given again to even out processes in evaluation; None: all
    rollouts: Rollouts | None = None  # filled in place by OnPolicyRollout

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    def select(self, start: int, stop: int) -> Prompts:
        """Prompts `start` to `stop`, as a new structure of one window step."""
        cut = self.apply(lambda tensor: tensor[start:stop])
        return dataclasses.replace(cut, rows=self.rows[start:stop], window=WindowStep(), rollouts=None)

    def share(self) -> Prompts:
        """The micro-batch's own prompts out of its window's."""
        size = len(self) // self.window.size
        return self.select(self.window.index * size, (self.window.index + 1) * size) if self.window.size > 1 else self
