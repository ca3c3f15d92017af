"""The policy's confidence in the reference answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.rewards import RewardAggregator
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class AnswerConfidence(ScoreSignal):
    """The trace reward R of an aggregation: the policy's confidence in the reference answer after the trace.

    Args:
        aggregator: from the confidences in the answer's tokens to a number.
        only_ended: a trace that did not end with its marker by itself gets the aggregation's lowest value: 0, or minus
            infinity for log-probs, which leaves it out of its group.

    Example:
        >>> from nrt_lightning.rewards import LogProb, Prob
        >>> AnswerConfidence(Prob()).minimum, AnswerConfidence(LogProb()).minimum
        (0.0, -inf)
    """

    aggregator: RewardAggregator
    only_ended: bool = False

    @property
    def minimum(self) -> float:
        """The aggregation's lowest value."""
        return self.aggregator.minimum

    @property
    def needs_baseline(self) -> bool:
        """As the aggregation says."""
        return self.aggregator.needs_baseline

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        value = self.aggregator(evidence.answer_logprobs, evidence.answer_mask, evidence.baseline_logprobs).value  # [N]
        if not self.only_ended:
            return value
        return torch.where(evidence.rollouts.segments.marker_emitted, value, self.minimum)
