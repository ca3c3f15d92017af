"""How far from indifferent the policy is while it writes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.functional import masked_mean
from nrt_lightning.models.scoring.certainty import token_certainty
from nrt_lightning.signals.base import RolloutEvidence, RolloutSignal


@dataclass(frozen=True)
class SelfCertainty(RolloutSignal):
    """Mean over the tokens the policy wrote of `KL(U || pi) = -log V - 1/V sum_v log pi(v)`, U uniform over V tokens.

    INTUITOR's reward (arXiv 2505.19590), in nats; no answer is needed. It is the mean over the whole response where
    that is trained (`train_response`), over trace and emitted marker otherwise; a trace without tokens has 0. The
    authors' code leaves out the constant `-log V`. Costs a forward pass without gradient of its own.

    The policy that is trained must be the one that scores: a fixed scorer is exploited, the authors found.

    Example:
        >>> SelfCertainty().minimum
        0.0
    """

    minimum = 0.0

    def measure(self, evidence: RolloutEvidence) -> Tensor:
        """See `RolloutSignal.measure`."""
        rollouts = evidence.trained
        segments = rollouts.segments
        written = segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))  # [N, C]
        return masked_mean(token_certainty(evidence.policy.network, rollouts), written, dim=1)
