"""A penalty on long traces."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class LengthPenalty(ScoreSignal):
    """`-max(0, L - target) / target` of a trace of L tokens: 0 up to the target, -1 at twice the target.

    Args:
        target: longest trace without a penalty, in tokens.
        both_sides: penalize shorter traces alike: `-|L - target| / target`.

    Raises:
        InputError: if `target` is below 1.

    Example:
        >>> LengthPenalty(target=256)
        LengthPenalty(target=256, both_sides=False)
    """

    target: int
    both_sides: bool = field(default=False, kw_only=True)
    needs_answer_logprobs = False

    def __post_init__(self) -> None:
        check_at_least("target", self.target, 1)

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        over = evidence.rollouts.segments.trace_mask.sum(dim=1) / self.target - 1  # [N]
        return -(over.abs() if self.both_sides else over.clamp(min=0))
