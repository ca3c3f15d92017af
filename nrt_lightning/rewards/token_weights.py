"""Weights of the answer tokens in the answer term of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import (
    at_least_float32,
    check_same_shape,
    group_logsumexp,
    group_normalize,
    group_statistics,
)


class TokenWeighting(ABC):
    """Computes the weights of the answer term from the token weights alpha_i c_i of a reward aggregator."""

    needs_logprobs = False  # whether the trace rewards must be log-probs of the answers
    needs_derived = True  # True: reads the token weights of the aggregation

    @abstractmethod
    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Compute the weights of the answer tokens.

        Args:
            token_weights: `[N, T]` of the aggregator; values outside the mask are ignored.
            answer_mask: `[N, T]` bool.
            group_ids: `[N]` integers, any values in any order.
            values: `[N]` trace rewards, read only by `PosteriorTokenWeights`.

        Returns:
            `[N, T]` in float32 or float64, 0 outside the answer.
        """


@dataclass(frozen=True)
class FixedTokenWeights(TokenWeighting):
    """1 for every answer token; used in the main experiments of arXiv 2602.11549.

    Example:
        >>> FixedTokenWeights()(torch.tensor([[0.3, 0.1]]), torch.tensor([[True, False]]), torch.tensor([0]))
        tensor([[1., 0.]])
    """

    needs_derived = False

    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """The mask as numbers. `[N, T]`"""
        return answer_mask.to(at_least_float32(token_weights).dtype)


@dataclass(frozen=True)
class DerivedTokenWeights(TokenWeighting):
    """`(w - mean(w)) / std(w)`, with w = alpha_i c_i of all answer tokens of a group (arXiv 2602.11549).

    The standard deviation is unbiased; the weights are 0 if it is 0. Token weights that are not finite are excluded and
    become 0.

    Args:
        center: subtract the mean. Tokens below it get negative weights, which make them less likely.
        scale: divide by the standard deviation.

    Example:
        >>> weights, mask = torch.tensor([[0.75, 0.25], [0.5, 0.0]]), torch.tensor([[True, True], [True, False]])
        >>> DerivedTokenWeights()(weights, mask, torch.tensor([0, 0]))
        tensor([[ 1., -1.],
                [ 0.,  0.]])
        >>> DerivedTokenWeights(center=False, scale=False)(weights, mask, torch.tensor([0, 0]))
        tensor([[0.7500, 0.2500],
                [0.5000, 0.0000]])
    """

    center: bool = field(default=True, kw_only=True)
    scale: bool = field(default=True, kw_only=True)

    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Normalized weights `[N, T]`."""
        check_same_shape("token_weights", token_weights, "answer_mask", answer_mask)
        weights = at_least_float32(token_weights)
        pooled = weights[answer_mask]  # [tokens]
        pool_ids = group_ids.unsqueeze(1).expand_as(answer_mask)[answer_mask]  # [tokens]
        normalized = group_normalize(pooled, pool_ids, pooled.isfinite(), center=self.center, scale=self.scale)
        return torch.zeros_like(weights).masked_scatter(answer_mask, normalized)


@dataclass(frozen=True)
class PosteriorTokenWeights(TokenWeighting):
    """`alpha_i c_i K p_k / sum_j p_j` with p_k = exp(R_k), so that traces that make the answer likely weigh most.

    With `LogProb` as aggregator, p_k = prod_i c_i, and the answer term averaged over sequences is the gradient of the
    multi-sample bound `log(1/K sum_k p_k)` (JEPO, arXiv 2503.19618, equation 7). Computed from log-probs, so that long
    answers do not underflow. Rows with a reward of minus infinity get 0.

    Example:
        >>> ones, mask = torch.ones(2, 1), torch.tensor([[True], [True]])
        >>> PosteriorTokenWeights()(ones, mask, torch.tensor([0, 0]), torch.tensor([0.6, 0.2]).log())
        tensor([[1.5000],
                [0.5000]])
    """

    needs_logprobs = True

    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Posterior weights `[N, T]`."""
        if values is None:
            raise InputError("PosteriorTokenWeights requires values [N]: pass the trace rewards of LogProb.")
        check_same_shape("token_weights", token_weights, "answer_mask", answer_mask)
        usable = values.isfinite()
        posterior = (values - group_logsumexp(values, group_ids)).exp()  # [N]
        size = group_statistics(torch.zeros_like(values), group_ids).count  # [N] K, including rows without a reward
        factor = torch.where(usable, posterior * size, 0)
        return torch.where(answer_mask, at_least_float32(token_weights) * factor.unsqueeze(1), 0)
