"""Mean of the confidences, weighted by the difficulty of each token without a trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_choice
from nrt_lightning.rewards.base import RewardAggregator, answer_only
from nrt_lightning.structures import TraceReward

LOWEST_LOGPROB = -1e4  # nats; replaces the log of a baseline probability of 0


@dataclass(frozen=True)
class WeightedSum(RewardAggregator):
    """`R = 1/T sum_i w_i c_i`, w_i computed from b_i, the confidence after the empty trace; token weights w_i c_i/T.

    Tokens that are hard to predict without reasoning have the largest weights (arXiv 2602.11549):

    - `neg_log_prob` (NRT-WS(-log p), the best of the paper): `w_i = -log b_i`, in nats. Log-probs above 0, which are
      rounding errors, count as 0.
    - `inverse_prob` (NRT-WS(1/p)): `w_i = 1/b_i`, so that R is the mean ratio to the baseline. b_i is at least 2e-35 in
      float32, so that c_i/b_i does not overflow.

    Args:
        weighting: `neg_log_prob` or `inverse_prob`.

    Raises:
        InputError: if `weighting` is unknown.

    Example:
        >>> c, b = torch.tensor([[0.5, 0.8]]), torch.tensor([[0.1, 0.8]])
        >>> WeightedSum("inverse_prob")(c.log(), torch.tensor([[True, True]]), b.log()).value
        tensor([3.])
        >>> WeightedSum()(c.log(), torch.tensor([[True, True]]), b.log()).token_weights
        tensor([[0.5756, 0.0893]])
    """

    needs_baseline: ClassVar[bool] = True
    weighting: Literal["neg_log_prob", "inverse_prob"] = "neg_log_prob"

    def __post_init__(self) -> None:
        check_choice("weighting", self.weighting, ("neg_log_prob", "inverse_prob"))

    @property
    def name(self) -> str:
        """The name in logs: `weighted_sum_neg_log_prob` or `weighted_sum_inverse_prob`."""
        return f"{super().name}_{self.weighting}"

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Rewards `[N]` and token weights `[N, T]`."""
        if baseline_logprobs is None:
            raise InputError(
                "WeightedSum requires baseline_logprobs [N, T], the log-probs of the answers after the empty trace. "
                "Pass them, or use an aggregator without a baseline, such as GeometricMean."
            )
        logprobs, length = answer_only(answer_logprobs, answer_mask)  # [N, T], [N, 1]
        baseline, _ = answer_only(baseline_logprobs, answer_mask, "baseline_logprobs")  # [N, T]
        if self.weighting == "neg_log_prob":
            weighted = -baseline.clamp(min=LOWEST_LOGPROB, max=0) * logprobs.exp()
        else:
            # The bound does not depend on c_i, so the token weights are still c_i dR/dc_i.
            lowest = -0.9 * math.log(torch.finfo(logprobs.dtype).max)
            weighted = (logprobs - baseline.clamp(min=lowest)).exp()
        token_weights = torch.where(answer_mask, weighted / length, 0)  # [N, T]
        return TraceReward(value=token_weights.sum(1), token_weights=token_weights)
