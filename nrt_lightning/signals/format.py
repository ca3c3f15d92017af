"""A reward for rollouts that end by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import override

from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal
from nrt_lightning.structures import Rollouts


@dataclass(frozen=True)
class Format(ScoreSignal):
    """1 if the policy emitted the marker, else 0.

    Args:
        policy_answer: require that the policy's answer ended with the end token, too.

    Example:
        >>> Format().minimum, Format().needs_policy_answers, Format(policy_answer=True).needs_policy_answers
        (0.0, False, True)
    """

    policy_answer: bool = field(default=False, kw_only=True)
    minimum = 0.0
    needs_answer_logprobs = False

    @property
    @override
    def needs_policy_answers(self) -> bool:
        return self.policy_answer

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        rollouts = evidence.rollouts
        return (well_formed(rollouts) if self.policy_answer else rollouts.segments.marker_emitted).float()


def well_formed(rollouts: Rollouts) -> Tensor:
    """True where the policy emitted the marker and, if it wrote an answer, ended that. [N]"""
    emitted, written = rollouts.segments.marker_emitted, rollouts.policy_answers
    return emitted if written is None else emitted & written.ended
