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
    messages: list[dict[str, str]]  # the conversation, ending with the question: {"role": ..., "content": ...}
    answer: str | None = None  # None in prediction
    origin: str = ""  # file and line, for errors: "train.jsonl:12"
    checks: tuple[str, ...] = ()  # pieces that a correct answer contains, in order; empty if the whole answer counts

    @property
    def question(self) -> str:
        """The text of the last turn before the answer."""
        return self.messages[-1]["content"]


@dataclass
class WindowStep:
    """The position of a micro-batch in its window: `index` of `size`, in pass `epoch` of `epochs`.

    Every micro-batch carries all prompts of its window. The rollout callback samples for all of them at once and hands
    out slice `index` of `size` at each micro-batch, in `epochs` passes over the same rollouts.
    """

    index: int = 0
    size: int = 1
    epoch: int = 0
    epochs: int = 1

    @property
    def first(self) -> bool:
        """True for the first micro-batch of the window."""
        return self.index == 0 and self.epoch == 0


@dataclass
class Prompts(TensorStruct):
    """Questions and reference answers of one micro-batch, or of a whole window if `window.size > 1`."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    answer_ids: Tensor  # [B, T] right-padded, with the end token; T = 0 without answers
    answer_mask: Tensor  # [B, T]
    rows: list[Row] = field(default_factory=list)  # B texts that the ids encode
    window: WindowStep = field(default_factory=WindowStep)
    counted: Tensor | None = None  # [B] False for padding rows of evaluation; None if all rows count
    rollouts: Rollouts | None = None  # filled in place by OnPolicyRollout

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    def select(self, start: int, stop: int) -> Prompts:
        """Prompts `start` to `stop` as a micro-batch that is a window by itself."""
        cut = self.apply(lambda tensor: tensor[start:stop])
        return dataclasses.replace(cut, rows=self.rows[start:stop], window=WindowStep(), rollouts=None)

    def share(self) -> Prompts:
        """The prompts of this micro-batch among all prompts of its window."""
        size = len(self) // self.window.size
        return self.select(self.window.index * size, (self.window.index + 1) * size) if self.window.size > 1 else self
