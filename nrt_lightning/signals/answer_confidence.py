"""The policy's confidence in the reference answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.rewards import RewardAggregator
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class AnswerConfidence(ScoreSignal):
    """The trace reward R of an aggregation: the policy's confidence in the reference answer after the trace.

    Args:
        aggregator: aggregates the confidences in the answer's tokens to one number.
        only_ended: give traces whose marker was forced the aggregation's lowest value. This is 0, or minus infinity for
            log-probs, which leaves the trace out of its group.

    Example:
        >>> from nrt_lightning.rewards import LogProb, Prob
        >>> AnswerConfidence(Prob()).minimum, AnswerConfidence(LogProb()).minimum
        (0.0, -inf)
    """

    aggregator: RewardAggregator
    only_ended: bool = field(default=False, kw_only=True)

    @property
    @override
    def minimum(self) -> float:
        return self.aggregator.minimum

    @property
    @override
    def needs_baseline(self) -> bool:
        return self.aggregator.needs_baseline

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        value = self.aggregator(evidence.answer_logprobs, evidence.answer_mask, evidence.baseline_logprobs).value  # [N]
        if not self.only_ended:
            return value
        return torch.where(evidence.rollouts.segments.marker_emitted, value, self.minimum)
