"""Log-probability of the whole answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward


@dataclass(frozen=True)
class LogProb(RewardAggregator):
    """`R = sum_i log c_i`, in nats; token weights 1.

    JEPO (arXiv 2503.19618), or JLB: the expectation is a lower bound of the log-likelihood of the answer. The size of
    the reward grows with the answer's length. It is minus infinity for an answer without tokens or with an impossible
    token.

    Example:
        >>> import torch
        >>> reward = LogProb()(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[True, True]]))
        >>> reward.value.exp(), reward.token_weights
        (tensor([0.1250]), tensor([[1., 1.]]))
    """

    gives_logprobs: ClassVar[bool] = True
    minimum: ClassVar[float] = float("-inf")

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Rewards `[N]` and token weights `[N, T]`."""
        logprobs, _ = answer_only(answer_logprobs, answer_mask)  # [N, T]
        value = logprobs.sum(1).masked_fill(~answer_mask.any(1), float("-inf"))  # [N]
        return TraceReward(value=value, token_weights=answer_mask.to(value.dtype))
