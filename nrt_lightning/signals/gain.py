"""What a trace adds to the confidence in the answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.rewards import RewardAggregator
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class GainOverBaseline(ScoreSignal):
    """`R - R_baseline`: an aggregation's value after the trace minus its value after the empty trace.

    RLPR's probability reward is `max(0, mean c - mean b)` (arXiv 2506.18254).

    Args:
        aggregator: from the confidences in the answer's tokens to a number.
        clip: 0 for a trace that helps less than none.

    Example:
        >>> from nrt_lightning.rewards import ArithmeticMean
        >>> GainOverBaseline(ArithmeticMean()).minimum, GainOverBaseline(ArithmeticMean(), clip=True).minimum
        (-inf, 0.0)
    """

    aggregator: RewardAggregator
    clip: bool = False
    needs_baseline = True

    @property
    def minimum(self) -> float:
        """0 if clipped."""
        return 0.0 if self.clip else float("-inf")

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        baseline, mask = evidence.baseline_logprobs, evidence.answer_mask
        if baseline is None:
            raise InputError("GainOverBaseline needs baseline_logprobs: score the answers after the empty trace.")
        gain = self.aggregator(evidence.answer_logprobs, mask, baseline).value
        gain = gain - self.aggregator(baseline, mask, baseline).value  # [N]
        return gain.clamp(min=0) if self.clip else gain
