"""Arithmetic mean of the confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward


@dataclass(frozen=True)
class ArithmeticMean(RewardAggregator):
    """`R = 1/T sum_i c_i`, 0 to 1; token weights c_i/T.

    The reward of RLPR (arXiv 2506.18254). One unlikely token has little effect on the reward of a long answer.

    Example:
        >>> reward = ArithmeticMean()(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[True, True]]))
        >>> reward.value, reward.token_weights
        (tensor([0.3750]), tensor([[0.2500, 0.1250]]))
    """

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Rewards `[N]` and token weights `[N, T]`."""
        logprobs, length = answer_only(answer_logprobs, answer_mask)  # [N, T], [N, 1]
        token_weights = torch.where(answer_mask, logprobs.exp() / length, 0)  # [N, T]
        return TraceReward(value=token_weights.sum(1), token_weights=token_weights)
