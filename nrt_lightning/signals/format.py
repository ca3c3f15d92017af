"""Whether a rollout has the form it should have."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class Format(ScoreSignal):
    """1 if the trace ended with its marker by itself, else 0.

    Args:
        own_answer: ask that the policy's own answer ended by itself too.

    Example:
        >>> Format().minimum, Format().needs_own_answers, Format(own_answer=True).needs_own_answers
        (0.0, False, True)
    """

    own_answer: bool = False
    minimum = 0.0

    @property
    def needs_own_answers(self) -> bool:
        """Whether the policy must write an answer of its own."""
        return self.own_answer

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        good = evidence.rollouts.segments.marker_emitted  # [N]
        own = evidence.rollouts.own_answers
        if self.own_answer and own is not None:
            good = good & own.ended
        return good.float()
