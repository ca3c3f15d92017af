"""A reward for rollouts that end by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal
from nrt_lightning.structures import PolicyAnswers, Rollouts


@dataclass(frozen=True)
class Format(ScoreSignal):
    """1 if the policy emitted the marker, else 0.

    Args:
        policy_answer: require that the policy's answer ended with the end token, too, and does not repeat the marker.

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
    """True where the policy emitted the marker, once, and, if it wrote an answer, ended that. [N]"""
    emitted, written = rollouts.segments.marker_emitted, rollouts.policy_answers
    return emitted if written is None else emitted & written.ended & ~repeats(written, rollouts.marker_ids)


def repeats(written: PolicyAnswers, marker_ids: tuple[int, ...]) -> Tensor:
    """True where an answer holds the marker in its usual tokens. [N]

    >>> answers = torch.tensor([[7, 5, 6, 2], [7, 5, 2, 6]])
    >>> mask = torch.ones_like(answers).bool()
    >>> repeats(PolicyAnswers(answers, mask, ended=mask[:, 0]), (5, 6))
    tensor([ True, False])
    """
    ids = torch.where(written.mask, written.ids, -1)  # [N, W]
    if ids.shape[1] < len(marker_ids):
        return torch.zeros_like(written.ended)
    windows = ids.unfold(1, len(marker_ids), 1)  # [N, W - M + 1, M]
    return (windows == torch.tensor(marker_ids, device=ids.device)).all(dim=-1).any(dim=1)
