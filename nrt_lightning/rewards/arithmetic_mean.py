"""The arithmetic mean of the answer's confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward


@dataclass(frozen=True)
class ArithmeticMean(RewardAggregator):
    """`R = 1/T sum_i c_i`, 0 to 1; token weights c_i/T.

    Known as RLPR (arXiv 2506.18254): one unlikely token cannot ruin the reward of a long answer.

    Example:
        >>> reward = ArithmeticMean()(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[True, True]]))
        >>> reward.value, reward.token_weights
        (tensor([0.3750]), tensor([[0.2500, 0.1250]]))
    """

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """`R = 1/T sum_i c_i` of `[N, T]` log-probs; see `RewardAggregator.__call__`."""
        logprobs, length = answer_only(answer_logprobs, answer_mask)  # [N, T], [N, 1]
        token_weights = torch.where(answer_mask, logprobs.exp() / length, 0)  # [N, T]
        return TraceReward(value=token_weights.sum(1), token_weights=token_weights)
