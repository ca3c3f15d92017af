"""Geometric mean of the confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward


@dataclass(frozen=True)
class GeometricMean(RewardAggregator):
    """`R = (prod_i c_i)^(1/T)`, 0 to 1; token weights R/T.

    NRT-GM (arXiv 2602.11549): the inverse perplexity of the answer, comparable between answers of different lengths.

    Example:
        >>> reward = GeometricMean()(torch.tensor([[0.5, 0.125]]).log(), torch.tensor([[True, True]]))
        >>> reward.value, reward.token_weights
        (tensor([0.2500]), tensor([[0.1250, 0.1250]]))
    """

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Rewards `[N]` and token weights `[N, T]`."""
        logprobs, length = answer_only(answer_logprobs, answer_mask)  # [N, T], [N, 1]
        value = (logprobs / length).sum(1).exp() * answer_mask.any(1)  # [N]
        return TraceReward(value=value, token_weights=torch.where(answer_mask, value.unsqueeze(1) / length, 0))
