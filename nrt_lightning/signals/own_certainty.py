"""Rewards of how certain the policy is of what it writes. They use no reference answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional import masked_mean, masked_sum
from nrt_lightning.signals.base import RolloutEvidence, RolloutSignal
from nrt_lightning.structures import Segments


@dataclass(frozen=True)
class NegativeEntropy(RolloutSignal):
    """`-1/n sum_t H(pi(. | x, y_<t))` over the n sampled tokens, in nats: RENT (arXiv 2505.22660).

    With `average` false it is the sum, as in EM-RL by tokens (arXiv 2505.15134; its code averages). With
    `train_response` the tokens are those of the response, otherwise those of the trace and an emitted marker. Costs one
    forward pass without gradient.

    Args:
        average: divide by the number of tokens.

    Example:
        >>> NegativeEntropy().minimum
        -inf
    """

    average: bool = field(default=True, kw_only=True)

    @override
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        rollouts = evidence.trained
        entropy = evidence.policy.score(rollouts).entropy  # [N, C]
        reduce = masked_mean if self.average else masked_sum
        return -reduce(entropy, sampled_tokens(rollouts.segments), dim=1)


@dataclass(frozen=True)
class OwnLogProb(RolloutSignal):
    """`log pi(y | x)` of what the policy wrote, in nats: EM-RL by sequences (arXiv 2505.15134).

    Its expectation is the negative entropy of whole responses. Costs one forward pass without gradient.

    Args:
        average: divide by the number of tokens, as the authors' code does.

    Example:
        >>> OwnLogProb().minimum
        -inf
    """

    average: bool = field(default=False, kw_only=True)

    @override
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        rollouts = evidence.trained
        reduce = masked_mean if self.average else masked_sum
        return reduce(evidence.policy.score(rollouts).logprobs, sampled_tokens(rollouts.segments), dim=1)


def sampled_tokens(segments: Segments) -> Tensor:
    """The tokens of trace and emitted marker; of responses, of the policy's answer too. `[N, C]` bool"""
    return segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))
