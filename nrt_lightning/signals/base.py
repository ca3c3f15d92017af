"""What every signal shares: what it is called, what it may look at, and what it says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nrt_lightning.structures import Prompts, Rollouts, Row

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


@dataclass
class ScoreEvidence:
    """What a signal may look at in the training step. The groups are whole; there may be any number of them."""

    rollouts: Rollouts
    answer_logprobs: Tensor  # [N, T] of the reference answer after the trace, by the policy that wrote the trace
    answer_mask: Tensor  # [N, T]
    baseline_logprobs: Tensor | None = None  # [N, T] of the reference answer after the empty trace


@dataclass
class RolloutText:
    """One rollout as text, without special tokens."""

    question: str
    answer: str  # the reference answer
    trace: str
    marker_emitted: bool  # whether the policy ended the trace itself
    own_answer: str  # what the policy wrote after the marker; "" where nothing asked it to
    own_answer_ended: bool  # with the end token, not cut by the limit
    row: Row  # the whole row of the data


@dataclass
class RolloutEvidence:
    """What a signal may look at right after the traces were written, while the policy is still the one that wrote."""

    policy: Policy
    prompts: Prompts  # with their rollouts

    @property
    def rollouts(self) -> Rollouts:
        """The N rollouts of the prompts, with the reference answer."""
        return self.trained.judged

    @property
    def trained(self) -> Rollouts:
        """What will take the gradient: the same, or the responses with the policy's own answers."""
        assert self.prompts.rollouts is not None
        return self.prompts.rollouts

    @cached_property
    def texts(self) -> list[RolloutText]:
        """The rollouts as text, N of them."""
        rollouts, own = self.rollouts, self.rollouts.own_answers
        count = len(rollouts)
        answers = self._decoded(self.prompts.answer_ids, self.prompts.answer_mask)  # B
        traces = self._decoded(rollouts.completion_ids, rollouts.segments.trace_mask)
        written = [""] * count if own is None else self._decoded(own.ids, own.mask)
        ended = [False] * count if own is None else own.ended.tolist()
        emitted = rollouts.segments.marker_emitted.tolist()
        texts = []
        for n, b in enumerate(rollouts.group_ids.tolist()):
            row = self.prompts.rows[b]
            texts.append(RolloutText(row.question, answers[b], traces[n], emitted[n], written[n], ended[n], row))
        return texts

    def _decoded(self, ids: Tensor, mask: Tensor) -> list[str]:
        rows = [i[m].tolist() for i, m in zip(ids, mask, strict=True)]
        return self.policy.tokenizer.batch_decode(rows, skip_special_tokens=True)


class Signal(ABC):  # noqa: B024  (what is abstract is in the two kinds below)
    """One number a rollout, of which rewards are combined. What it is called is said where it is combined.

    A subclass of `Signal` is computed from log-probs in the training step, one of `RolloutSignal` when the traces have
    just been written. It overrides what is not as below; a class attribute will do.
    """

    @property
    def minimum(self) -> float:
        """The lowest value it can take; below 0 it is refused by a geometric mean."""
        return float("-inf")

    @property
    def needs_baseline(self) -> bool:
        """Whether the answers must be scored after the empty trace."""
        return False

    @property
    def needs_group(self) -> bool:
        """Whether it compares the rollouts of a prompt, and hence needs K >= 2."""
        return False

    @property
    def needs_own_answers(self) -> bool:
        """Whether the policy must write an answer of its own after every trace."""
        return False


class ScoreSignal(Signal):
    """A signal from the log-probs of the reference answer, or from the tokens alone."""

    @abstractmethod
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """The signal of N rollouts, `[N]`; a value that is not finite leaves its rollout out of its group."""


class RolloutSignal(Signal):
    """A signal that needs the texts or the model: measured once, when the traces have been written.

    So it is the old policy's also in a window of several optimizer steps.
    """

    @abstractmethod
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        """The signal of N rollouts, `[N]`."""


class TextSignal(RolloutSignal):
    """A signal that reads the rollouts as text."""

    @property
    def needs_own_answers(self) -> bool:
        """Whether the policy must write an answer of its own after every trace: here, yes."""
        return True

    @abstractmethod
    def read(self, text: RolloutText) -> float:
        """The signal of one rollout."""

    def measure(self, evidence: RolloutEvidence) -> Tensor:
        """The signal of N rollouts, `[N]`."""
        values = [self.read(text) for text in evidence.texts]
        return torch.tensor(values, dtype=torch.float32, device=evidence.prompts.prompt_ids.device)
