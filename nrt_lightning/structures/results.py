"""Scores, rewards and losses of rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nrt_lightning.structures.base import TensorStruct


@dataclass
class Scores(TensorStruct):
    """Log-probs that models give to rollouts."""

    logprobs: Tensor  # [N, C] of the completion's tokens, 0 at padding
    entropy: Tensor  # [N, C] of each token's distribution, in nats, 0 at padding; with gradient for an entropy bonus
    baseline_logprobs: Tensor | None = None  # [B, T] of the answer after the empty trace, detached
    ref_logprobs: Tensor | None = None  # [N, C] of the completion's tokens under the reference, detached


@dataclass
class TraceReward(TensorStruct):
    """Trace rewards of N rollouts, with what follows from the same confidences."""

    value: Tensor  # [N] the trace reward R
    token_weights: Tensor  # [N, T] alpha_i * c_i, 0 outside the answer
    signals: dict[str, Tensor] = field(default_factory=dict)  # [N] each: what `value` was combined from
    baseline: Tensor | None = None  # [N] the reward of the empty trace for the same prompt; None where it is unknown


@dataclass
class Credit(TensorStruct):
    """What the rollouts of a batch are worth to the loss. All detached."""

    reward: TraceReward
    advantages: Tensor  # [N], or [N, C] for credit by token
    token_weights: Tensor  # [N, C] of the answer term
    loss_rows: Tensor | None = None  # [N] False: the rollout carries no loss; None: all do


@dataclass
class LossOutput:
    """A loss with its parts, each a scalar."""

    loss: Tensor
    terms: dict[str, Tensor]  # each before its coefficient, detached
    metrics: dict[str, Tensor] = field(default_factory=dict)  # clip fraction and the like, detached
    counts: dict[str, Tensor] = field(default_factory=dict)  # of tokens that a metric is the mean of
    parts: dict[str, Tensor] = field(default_factory=dict)  # add up to the loss, with gradient; one for each divisor
    sizes: dict[str, Tensor] = field(default_factory=dict)  # divisor of each part, the mean over all processes
