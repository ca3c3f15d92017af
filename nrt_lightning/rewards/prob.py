"""Probability of the whole answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward


@dataclass(frozen=True)
class Prob(RewardAggregator):
    """`R = prod_i c_i`, 0 to 1; token weights R.

    The reward of VeriFree (arXiv 2505.21493): the probability of the whole answer, close to 0 for long answers.

    Example:
        >>> reward = Prob()(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[True, True]]))
        >>> reward.value, reward.token_weights
        (tensor([0.1250]), tensor([[0.1250, 0.1250]]))
    """

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Rewards `[N]` and token weights `[N, T]`."""
        logprobs, _ = answer_only(answer_logprobs, answer_mask)  # [N, T]
        value = logprobs.sum(1).exp() * answer_mask.any(1)  # [N]
        return TraceReward(value=value, token_weights=torch.where(answer_mask, value.unsqueeze(1), 0))
