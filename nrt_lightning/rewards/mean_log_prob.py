"""Mean log-probability of the answer's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward


@dataclass(frozen=True)
class MeanLogProb(RewardAggregator):
    """`R = 1/T sum_i log c_i`, in nats per token; token weights 1/T.

    `LogProb` with the same weight for answers of all lengths (AvgLogprob of arXiv 2602.03979). The reward is
    minus infinity for an answer without tokens or with an impossible token.

    Example:
        >>> import torch
        >>> reward = MeanLogProb()(torch.tensor([[0.5, 0.125]]).log(), torch.tensor([[True, True]]))
        >>> reward.value.exp(), reward.token_weights
        (tensor([0.2500]), tensor([[0.5000, 0.5000]]))
    """

    minimum: ClassVar[float] = float("-inf")

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Rewards `[N]` and token weights `[N, T]`."""
        logprobs, length = answer_only(answer_logprobs, answer_mask)  # [N, T], [N, 1]
        value = (logprobs / length).sum(1).masked_fill(~answer_mask.any(1), float("-inf"))  # [N]
        return TraceReward(value=value, token_weights=torch.where(answer_mask, 1 / length, 0))
