"""Confidences weighted by how hard each token is without a trace."""

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

LOWEST_LOGPROB = -1e4  # nats; stands for a baseline probability of exactly 0


@dataclass(frozen=True)
class WeightedSum(RewardAggregator):
    """`R = 1/T sum_i w_i c_i` with w_i from b_i, the confidence after the empty trace; token weights w_i c_i/T.

    Tokens that the policy cannot predict without reasoning count most (arXiv 2602.11549). Known as NRT-WS(-log p),
    the paper's best, and NRT-WS(1/p).

    - `neg_log_prob`: `w_i = -log b_i`, nats; a log-prob just above 0, from rounding, counts as 0.
    - `inverse_prob`: `w_i = 1/b_i`, so that R is the mean gain over the baseline. Where c_i/b_i would overflow
      (b_i below 1e-34 in float32), b_i is raised to the smallest usable value.

    Args:
        weighting: how a token's weight follows from its baseline confidence.

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
        """The name used in logs: `weighted_sum_neg_log_prob` or `weighted_sum_inverse_prob`."""
        return f"{super().name}_{self.weighting}"

    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """`R = 1/T sum_i w_i c_i` of `[N, T]` log-probs; see `RewardAggregator.__call__`."""
        if baseline_logprobs is None:
            raise InputError(
                "WeightedSum needs baseline_logprobs: score the answers after the empty trace and pass their "
                "log-probs [N, T], or choose an aggregation without a baseline, such as GeometricMean."
            )
        logprobs, length = answer_only(answer_logprobs, answer_mask)  # [N, T], [N, 1]
        baseline, _ = answer_only(baseline_logprobs, answer_mask, "baseline_logprobs")  # [N, T]
        if self.weighting == "neg_log_prob":
            weighted = -baseline.clamp(min=LOWEST_LOGPROB, max=0) * logprobs.exp()
        else:
            # The bound depends on the baseline alone, so c_i times the derivative still equals the token weight.
            lowest = -0.9 * math.log(torch.finfo(logprobs.dtype).max)
            weighted = (logprobs - baseline.clamp(min=lowest)).exp()
        token_weights = torch.where(answer_mask, weighted / length, 0)  # [N, T]
        return TraceReward(value=token_weights.sum(1), token_weights=token_weights)
