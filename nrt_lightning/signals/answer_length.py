"""A reward for answers of the reference answer's length."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class AnswerLength(ScoreSignal):
    """`1 - beta ||y*| - |y|| / |y*|` of the reference answer y* and the policy's answer y, in tokens with end tokens.

    Rewards of the trace alone let the policy's answers grow; DRO bounds them with this term (arXiv 2506.13351, section
    4.2.1).

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

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        if evidence.rollouts.policy_answers is None:
            raise InputError("AnswerLength needs the policy's answers, but rollouts.policy_answers is None.")
        written = evidence.rollouts.policy_answers.mask.sum(dim=1)  # [N]
        length = evidence.answer_mask.sum(dim=1)  # [N]
        return 1 - self.beta * (length - written).abs() / length.clamp(min=1)
