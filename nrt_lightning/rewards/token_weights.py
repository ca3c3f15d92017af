"""What weight each answer token gets in the answer term of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, check_same_shape, group_normalize


class TokenWeighting(ABC):
    """Turns the token weights alpha_i c_i of a reward aggregation into the weights the loss uses."""

    @abstractmethod
    def __call__(self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor) -> Tensor:
        """Weights of the answer tokens.

        Args:
            token_weights: `[N, T]` of the aggregation; anything outside the answer.
            answer_mask: `[N, T]` bool.
            group_ids: `[N]` integers, any values in any order.

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

    def __call__(self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor) -> Tensor:
        """1 where `answer_mask [N, T]` is True; see `TokenWeighting.__call__`."""
        return answer_mask.to(at_least_float32(token_weights).dtype)


@dataclass(frozen=True)
class DerivedTokenWeights(TokenWeighting):
    """alpha_i c_i, centred and scaled over all answer tokens of a group taken together (arXiv 2602.11549).

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

    def __call__(self, token_weights: Tensor, answer_mask: Tensor, group_ids: Tensor) -> Tensor:
        """Normalised weights `[N, T]`; see `TokenWeighting.__call__`."""
        check_same_shape("token_weights", token_weights, "answer_mask", answer_mask)
        weights = at_least_float32(token_weights)
        pooled = weights[answer_mask]  # [tokens]
        pool_ids = group_ids.unsqueeze(1).expand_as(answer_mask)[answer_mask]  # [tokens]
        normalized = group_normalize(pooled, pool_ids, pooled.isfinite(), center=self.center, scale=self.scale)
        return torch.zeros_like(weights).masked_scatter(answer_mask, normalized)
