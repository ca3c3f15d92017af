"""INTUITOR's reward: the certainty of the policy while it writes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional import masked_mean
from nrt_lightning.models.scoring.certainty import token_certainty
from nrt_lightning.signals.base import RolloutEvidence, RolloutSignal


@dataclass(frozen=True)
class SelfCertainty(RolloutSignal):
    """Mean over sampled tokens of `KL(U || pi) = -log V - 1/V sum_v log pi(v)`, with U uniform over V tokens, in nats.

    INTUITOR's reward (arXiv 2505.19590); it uses no answer. The authors' code omits the constant `-log V`. With
    `train_response` the mean is over the whole response, otherwise over the trace and an emitted marker. Without such
    tokens it is 0. Costs one forward pass without gradient.

    The scoring policy is the trained one: the authors found that policies exploit a fixed scorer.

    Example:
        >>> SelfCertainty().minimum
        0.0
    """

    minimum = 0.0

    @override
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        rollouts = evidence.trained
        segments = rollouts.segments
        written = segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))  # [N, C]
        return masked_mean(token_certainty(evidence.policy.network, rollouts), written, dim=1)
