"""Equality of the policy's answer and the reference answer, by what counts in both."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.signals.base import RolloutText, TextSignal


@dataclass(frozen=True)
class AnswerMatch(TextSignal):
    """Base class: 1 if `answer_key` of the policy's answer and of the reference answer are equal, else 0.

    An answer that its limit cut counts as wrong.

    Args:
        forced: count answers after a forced marker too.
    """

    forced: bool = field(default=False, kw_only=True)
    minimum = 0.0
    wanted = "an answer"  # what a reference answer must hold, for errors

    @abstractmethod
    @override
    def answer_key(self, answer: str) -> str | None: ...

    @override
    def read(self, text: RolloutText) -> float:
        if not (text.policy_answer_ended and (text.marker_emitted or self.forced)):
            return 0.0
        found = self.answer_key(text.policy_answer)
        return float(found is not None and found == self.answer_key(text.answer))
