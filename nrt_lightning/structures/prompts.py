"""Questions and their answers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.structures.base import TensorStruct
from nrt_lightning.structures.rollouts import Rollouts, Segments


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
    rollouts: Rollouts | None = None  # filled in place by OnPolicyRollout; always with the reference answer
    responses: Rollouts | None = None  # the same traces with the policy's own answer, where those are trained
    step: list[Segments] = field(default_factory=list)  # what carries a loss in all of an optimizer step, at its begin

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    @property
    def sampled(self) -> Rollouts:
        """`rollouts`, which must have been sampled."""
        assert self.rollouts is not None, "sample first"
        return self.rollouts

    @property
    def trained(self) -> Rollouts:
        """The rollouts that the loss is computed from: `responses` if there are any, else `rollouts`."""
        return self.responses or self.sampled

    def select(self, prompts: Tensor) -> Prompts:
        """These prompts `[b]`, ascending, with their rollouts, as a batch of one window step."""
        cut = dataclasses.replace(self, rollouts=None, responses=None, step=[]).apply(lambda tensor: tensor[prompts])
        cut.rows, cut.window = [self.rows[index] for index in prompts.tolist()] if self.rows else [], WindowStep()
        if self.rollouts is not None:
            rows = torch.isin(self.rollouts.group_ids, prompts).nonzero().squeeze(1)  # [n]
            cut.rollouts = self.rollouts.select(prompts, rows)
            cut.responses = None if self.responses is None else self.responses.select(prompts, rows)
        return cut

    def slice(self, start: int, stop: int) -> Prompts:
        """Prompts `start` to `stop` with their rollouts, as a batch of one window step."""
        return self.select(torch.arange(start, min(stop, len(self)), device=self.prompt_ids.device))

    def micro_batches(self) -> list[Prompts]:
        """The prompts of each micro-batch of the window."""
        if self.window.size == 1:
            return [dataclasses.replace(self, window=WindowStep())]
        size = math.ceil(len(self) / self.window.size)
        return [self.slice(start, start + size) for start in range(0, len(self), size)]

    def micro_batch(self) -> Prompts:
        """This micro-batch's prompts, out of those of its window."""
        if self.window.size == 1:
            return self
        size = math.ceil(len(self) / self.window.size)
        return self.slice(self.window.index * size, (self.window.index + 1) * size)
