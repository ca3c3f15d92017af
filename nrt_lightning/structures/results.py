"""What is found out about rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nrt_lightning.structures.base import TensorStruct


@dataclass
class Scores(TensorStruct):
    """What a model says of rollouts."""

    logprobs: Tensor  # [N, C] of the completion's tokens, 0 at padding
    entropy: Tensor  # [N, C] of the distribution each token was drawn from, in nats, detached, 0 at padding
    baseline_logprobs: Tensor | None = None  # [B, T] of the answer after the empty trace, detached
    ref_logprobs: Tensor | None = None  # [N, C] of the completion's tokens under the reference, detached


@dataclass
class TraceReward(TensorStruct):
    """What an aggregation of the answer's confidences gives."""

    value: Tensor  # [N] the trace reward R
    token_weights: Tensor  # [N, T] alpha_i * c_i, 0 outside the answer
    signals: dict[str, Tensor] = field(default_factory=dict)  # [N] each: what `value` was combined from


@dataclass
class Judgement(TensorStruct):
    """What the traces of a batch are worth. All detached."""

    old_logprobs: Tensor  # [N, C] of the policy that sampled them
    reward: TraceReward
    baseline: Tensor | None  # [N] the empty trace's reward for the same rows, where it is known
    advantages: Tensor  # [N]
    token_weights: Tensor  # [N, C] of the answer term


@dataclass
class LossOutput:
    """A loss with its parts, each a scalar."""

    loss: Tensor
    terms: dict[str, Tensor]  # each before its coefficient, detached
    metrics: dict[str, Tensor] = field(default_factory=dict)  # clip share and the like, detached
    counts: dict[str, Tensor] = field(default_factory=dict)  # of tokens that a metric is the mean of
