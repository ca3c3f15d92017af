"""How close the length of the policy's own answer is to that of the reference answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class AnswerLength(ScoreSignal):
    """`1 - beta ||y*| - |y|| / |y*|`, with y* the reference answer and y the policy's own, in tokens with their ends.

    A reward that looks at the trace alone lets the policy's own answers grow; DRO keeps them in bounds by this
    (arXiv 2506.13351, section 4.2.1).

    Args:
        beta: strength.

    Raises:
        InputError: if `beta` is negative.

    Example:
        >>> AnswerLength(beta=0.5).needs_policy_answers
        True
    """

    beta: float = 1.0
    needs_policy_answers = True
    needs_answer_logprobs = False

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        if evidence.rollouts.policy_answers is None:
            raise InputError("AnswerLength needs the policy's own answers: let the policy write them (own_answers).")
        written = evidence.rollouts.policy_answers.mask.sum(dim=1)  # [N]
        length = evidence.answer_mask.sum(dim=1)  # [N]
        return 1 - self.beta * (length - written).abs() / length.clamp(min=1)
