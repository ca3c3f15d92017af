"""What every signal shares: what it is called, what it may look at, and what it says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.structures import Prompts, Rollouts, Row

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


@dataclass
class ScoreEvidence:
    """What a signal may look at in the training step. The groups are whole; there may be any number of them."""

    rollouts: Rollouts
    logprobs: Tensor | None  # [N, T] of the reference answer after the trace; None where no signal reads them
    answer_mask: Tensor  # [N, T]
    baseline_logprobs: Tensor | None = None  # [N, T] of the reference answer after the empty trace

    @property
    def answer_logprobs(self) -> Tensor:
        """Log-probs of the reference answers after their traces, by the policy that wrote these, [N, T].

        Raises:
            InputError: no signal declares that it needs them.
        """
        if self.logprobs is None:
            raise InputError(
                "The signal reads answer_logprobs, but its needs_answer_logprobs is False. Set it to True."
            )
        return self.logprobs


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
        assert self.prompts.rollouts is not None
        return self.prompts.rollouts

    @property
    def trained(self) -> Rollouts:
        """What is trained: the same, or the responses with the policy's own answers."""
        return self.prompts.trained

    @cached_property
    def texts(self) -> list[RolloutText]:
        """The rollouts as text, N of them."""
        rollouts, own = self.rollouts, self.rollouts.policy_answers
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
    def needs_answer_logprobs(self) -> bool:
        """True if it reads the log-probs of the reference answers."""
        return self.needs_baseline

    @property
    def needs_group(self) -> bool:
        """Whether it compares the rollouts of a prompt, and hence needs K >= 2."""
        return False

    @property
    def needs_policy_answers(self) -> bool:
        """Whether the policy must write an answer of its own after every trace."""
        return False


class ScoreSignal(Signal):
    """A signal from the log-probs of the reference answer, or from the tokens alone."""

    @property
    def needs_answer_logprobs(self) -> bool:
        """True if it reads the log-probs of the reference answers: here, unless a subclass says otherwise."""
        return True

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
    def needs_policy_answers(self) -> bool:
        """Whether the policy must write an answer of its own after every trace: here, yes."""
        return True

    @abstractmethod
    def read(self, text: RolloutText) -> float:
        """The signal of one rollout."""

    def measure(self, evidence: RolloutEvidence) -> Tensor:
        """The signal of N rollouts, `[N]`."""
        values = [self.read(text) for text in evidence.texts]
        return torch.tensor(values, dtype=torch.float32, device=evidence.prompts.prompt_ids.device)
