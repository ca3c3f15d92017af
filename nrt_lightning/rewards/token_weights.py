"""What weight each answer token gets in the answer term of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
    """Turns the token weights alpha_i c_i of a reward aggregation into the weights the loss uses."""

    needs_logprobs = False  # whether the trace rewards must be log-probs of the answers
    needs_derived = True  # True: reads the token weights of the aggregation

    @abstractmethod
    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Weights of the answer tokens.

        Args:
            token_weights: `[N, T]` of the aggregation; anything outside the answer.
            answer_mask: `[N, T]` bool.
            group_ids: `[N]` integers, any values in any order.
            values: `[N]` the trace rewards; only `PosteriorTokenWeights` looks at them.

        Returns:
            `[N, T]` in float32 or float64, 0 outside the answer.
        """


@dataclass(frozen=True)
class FixedTokenWeights(TokenWeighting):
    """1 on every answer token, whatever the aggregation says: the authors' main experiments.

    Example:
        >>> FixedTokenWeights()(torch.tensor([[0.3, 0.1]]), torch.tensor([[True, False]]), torch.tensor([0]))
        tensor([[1., 0.]])
    """

    needs_derived = False

    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """1 where `answer_mask [N, T]` is True; see `TokenWeighting.__call__`."""
        return answer_mask.to(at_least_float32(token_weights).dtype)


@dataclass(frozen=True)
class DerivedTokenWeights(TokenWeighting):
    """alpha_i c_i, centered and scaled over all answer tokens of a group taken together (arXiv 2602.11549).

    With w the token weights of every answer token of the K rollouts of a prompt: `(w - mean(w)) / std(w)`, with the
    unbiased standard deviation and exactly 0 where that is 0. Weights that are not finite are left out and become 0.

    Args:
        center: subtract the mean; tokens below it then get negative weights, which push them down.
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

    center: bool = True
    scale: bool = True

    def __call__(
        self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Normalized weights `[N, T]`; see `TokenWeighting.__call__`."""
        check_same_shape("token_weights", token_weights, "answer_mask", answer_mask)
        weights = at_least_float32(token_weights)
        pooled = weights[answer_mask]  # [tokens]
        pool_ids = group_ids.unsqueeze(1).expand_as(answer_mask)[answer_mask]  # [tokens]
        normalized = group_normalize(pooled, pool_ids, pooled.isfinite(), center=self.center, scale=self.scale)
        return torch.zeros_like(weights).masked_scatter(answer_mask, normalized)


@dataclass(frozen=True)
class PosteriorTokenWeights(TokenWeighting):
    """`alpha_i c_i K p_k / sum_j p_j`: each trace's share of the answer's likelihood, p_k = exp(R_k), times K.

    With `LogProb` for the aggregation, p_k = prod_i c_i and the answer term averaged over sequences is the gradient of
    the multi-sample bound `log(1/K sum_k p_k)` (JEPO, arXiv 2503.19618, equation 7): a trace that makes the answer
    likely takes most of it. Computed from log-probs, so that long answers do not underflow. A row whose reward is minus
    infinity gets 0, and so does a group of such rows.

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
        """Weights `[N, T]`; see `TokenWeighting.__call__`."""
        if values is None:
            raise InputError("PosteriorTokenWeights needs values: the log-probs of the answers, one a rollout.")
        check_same_shape("token_weights", token_weights, "answer_mask", answer_mask)
        usable = values.isfinite()
        share = (values - group_logsumexp(values, group_ids)).exp()  # [N]
        size = group_statistics(torch.zeros_like(values), group_ids).count  # [N] K, rows without a reward too
        factor = torch.where(usable, share * size, 0)
        return torch.where(answer_mask, at_least_float32(token_weights) * factor.unsqueeze(1), 0)
