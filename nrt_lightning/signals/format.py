"""Whether a rollout has the form it should have."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal
from nrt_lightning.structures import Rollouts


@dataclass(frozen=True)
class Format(ScoreSignal):
    """1 if the trace ended with its marker by itself, else 0.

    Args:
        own_answer: ask that the policy's own answer ended by itself too.

    Example:
        >>> Format().minimum, Format().needs_policy_answers, Format(own_answer=True).needs_policy_answers
        (0.0, False, True)
    """

    own_answer: bool = False
    minimum = 0.0
    needs_answer_logprobs = False

    @property
    def needs_policy_answers(self) -> bool:
        """Whether the policy must write an answer of its own."""
        return self.own_answer

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        rollouts = evidence.rollouts
        return (well_formed(rollouts) if self.own_answer else rollouts.segments.marker_emitted).float()


def well_formed(rollouts: Rollouts) -> Tensor:
    """Whether the trace ended with its marker by itself, and the policy's own answer, where it wrote one, too. [N]"""
    emitted, own = rollouts.segments.marker_emitted, rollouts.policy_answers
    return emitted if own is None else emitted & own.ended
