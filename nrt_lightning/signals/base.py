"""Base classes of signals, and the evidence that signals read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional.validation import declared_logprobs
from nrt_lightning.models.policy.texts import decode, decode_answers, with_rows
from nrt_lightning.signals.failures import read_each
from nrt_lightning.structures import Prompts, Rollouts, Row

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


@dataclass
class ScoreEvidence:
    """Rollouts and log-probs of the reference answers, for signals of the training step.

    Groups are complete; a batch may hold any number of them.
    """

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
        return declared_logprobs(self.logprobs, "signal")


@dataclass
class RolloutText:
    """One rollout as text, without special tokens."""

    question: str
    answer: str  # the reference answer
    trace: str
    marker_emitted: bool  # False where the marker was forced
    policy_answer: str  # written by the policy after the marker; "" if no answer was sampled
    policy_answer_ended: bool  # False where the limit cut it
    row: Row  # the row of the data


@dataclass
class RolloutEvidence:
    """Rollouts right after sampling, with the policy that sampled them."""

    policy: Policy
    prompts: Prompts  # with their rollouts

    @property
    def rollouts(self) -> Rollouts:
        """The N rollouts of the prompts, with the reference answer."""
        return self.prompts.sampled

    @property
    def trained(self) -> Rollouts:
        """The rollouts that are trained: the same, or the responses with the policy's answers."""
        return self.prompts.trained

    @cached_property
    def texts(self) -> list[RolloutText]:
        """The N rollouts as text."""
        rollouts, written = self.rollouts, self.rollouts.policy_answers
        count = len(rollouts)
        answers = decode_answers(self.policy, self.prompts.answer_ids, self.prompts.answer_mask)  # B
        traces = decode(self.policy, rollouts.completion_ids, rollouts.segments.trace_mask)
        policy_answers = [""] * count if written is None else decode_answers(self.policy, written.ids, written.mask)
        ended = [False] * count if written is None else written.ended.tolist()
        emitted = rollouts.segments.marker_emitted.tolist()
        texts, rows = [], with_rows(self.prompts, self.policy).rows
        for n, b in enumerate(rollouts.group_ids.tolist()):
            row = rows[b]
            text = RolloutText(row.question, answers[b], traces[n], emitted[n], policy_answers[n], ended[n], row)
            texts.append(text)
        return texts


class Signal(ABC):  # noqa: B024  (the subclasses have the abstract methods)
    """One number for each rollout. Rewards are combined from signals.

    Subclass `ScoreSignal`, `RolloutSignal` or `TextSignal`. Override the properties below where they differ; a class
    attribute is enough. The combination gives the signal its name.
    """

    @property
    def minimum(self) -> float:
        """The lowest possible value. Geometric means require at least 0."""
        return float("-inf")

    @property
    def needs_baseline(self) -> bool:
        """True if the log-probs of the answers after the empty trace are required."""
        return False

    @property
    def needs_answer_logprobs(self) -> bool:
        """True if it reads the log-probs of the reference answers."""
        return self.needs_baseline

    @property
    def needs_group(self) -> bool:
        """True if the rollouts of a prompt are compared, which requires K >= 2."""
        return False

    @property
    def needs_policy_answers(self) -> bool:
        """True if the policy must write an answer after every trace."""
        return False


class ScoreSignal(Signal):
    """A signal of the log-probs of the reference answer, or of the tokens."""

    @property
    def needs_answer_logprobs(self) -> bool:
        """True if it reads the log-probs of the reference answers: here, unless a subclass says otherwise."""
        return True

    @abstractmethod
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """The values of N rollouts, `[N]`. A rollout whose value is not finite is left out of its group."""


class RolloutSignal(Signal):
    """A signal that requires texts or the model. It is computed once, right after sampling.

    In a window of several optimizer steps its values are those of the old policy.
    """

    @abstractmethod
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        """The values of N rollouts, `[N]`. A rollout whose value is not finite is left out of its group."""


class TextSignal(RolloutSignal):
    """A signal that reads rollouts as text.

    Override `read`, or also `read_all` to read many rollouts in one call. Set `concurrency` above 1 where `read` waits
    for a server; `read` is then called from threads.
    """

    concurrency: int = 1  # calls of `read` at a time
    needs_reference_answer = True  # False if it also reads rows without an answer
    wanted = "a text"  # what a reference answer must hold, for errors

    @property
    @override
    def needs_policy_answers(self) -> bool:
        return True

    def answer_key(self, answer: str) -> str | None:
        """What answers that count as the same have in common, for majority votes; None for an answer without it."""
        return answer.strip()

    @abstractmethod
    def read(self, text: RolloutText) -> float:
        """The value of one rollout. NaN or an exception leaves it out of its group."""

    def read_all(self, texts: list[RolloutText]) -> list[float]:
        """The values of many rollouts, in their order.

        Raises:
            ReadErrors: `read` raised for some rollouts. The error holds the values of the others.
        """
        return read_each(self.read, texts, self.concurrency)

    @override
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        values = self.read_all(evidence.texts)
        return torch.tensor(values, dtype=torch.float32, device=evidence.prompts.prompt_ids.device)
