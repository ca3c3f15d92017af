"""The gain in the answer's confidence over the empty trace."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.rewards import RewardAggregator
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class GainOverBaseline(ScoreSignal):
    """`R - R_baseline`: an aggregation's value after the trace minus its value after the empty trace.

    RLPR's probability reward is `max(0, mean c - mean b)` (arXiv 2506.18254).

    Args:
        aggregator: aggregates the confidences in the answer's tokens to one number.
        clip: set negative gains to 0. A gain that is not finite stays so, and its rollout is left out.
        only_ended: give traces whose marker was forced a gain of 0.

    Example:
        >>> from nrt_lightning.rewards import ArithmeticMean
        >>> GainOverBaseline(ArithmeticMean()).minimum, GainOverBaseline(ArithmeticMean(), clip=True).minimum
        (-inf, 0.0)
    """

    aggregator: RewardAggregator
    clip: bool = field(default=False, kw_only=True)
    only_ended: bool = field(default=False, kw_only=True)
    needs_baseline = True

    @property
    @override
    def minimum(self) -> float:
        return 0.0 if self.clip else float("-inf")

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        baseline, mask = evidence.baseline_logprobs, evidence.answer_mask
        if baseline is None:
            raise InputError("GainOverBaseline needs baseline_logprobs: score the answers after the empty trace.")
        gain = self.aggregator(evidence.answer_logprobs, mask, baseline).value
        gain = gain - self.aggregator(baseline, mask, baseline).value  # [N]
        gain = gain.clamp(min=0).where(gain.isfinite(), gain) if self.clip else gain
        return torch.where(evidence.rollouts.segments.marker_emitted, gain, 0) if self.only_ended else gain
