"""Importance weights of traces from a mixture of two prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, check_at_least
from nrt_lightning.losses.surrogates import importance_ratio


@dataclass(frozen=True)
class HybridImportance:
    """`min(p / ((1 - s) p + s q), cap)` of each token, the weight of its trace loss.

    p is its probability under the question, q that with the answer in the prompt, and s the share of the group's traces
    that were drawn with it: the group is a sample of the mixture. CoVRL (arXiv 2512.12576) has s = 1/2. The weight is
    at most 1 / (1 - s), and 1 where the answer changes nothing. It takes from tokens that only the answer makes likely
    most of their weight.

    Args:
        cap: upper bound of the weights.

    Raises:
        InputError: if `cap` is not above 0.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.1]]).log(), torch.tensor([[0.5, 0.9]]).log()
        >>> HybridImportance()(p, q, torch.tensor([0.5]), torch.ones(1, 2, dtype=torch.bool))
        tensor([[1.0000, 0.2000]])
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        check_at_least("answer_conditioned.correction.cap", self.cap, 0, above=True, infinite=True)

    def __call__(self, logprobs: Tensor, conditioned: Tensor, share: Tensor, sampled: Tensor) -> Tensor:
        """Compute the weights.

        Args:
            logprobs: `[N, C]` of the old policy under the question.
            conditioned: `[N, C]` of the old policy with the answer in the prompt.
            share: `[N]` fraction of the group that was drawn with the answer.
            sampled: `[N, C]` bool, the sampled tokens.

        Returns:
            `[N, C]`, detached; 1 for tokens that were not sampled.
        """
        p, q = self.summed(at_least_float32(logprobs.detach()), sampled), self.summed(conditioned, sampled)
        s = share.to(p.dtype).unsqueeze(1)  # [N, 1]
        mixture = torch.logaddexp((1 - s).log() + p, s.log() + q)
        mixture = torch.where(s > 0, mixture, p)
        return torch.where(sampled, importance_ratio(p, mixture).clamp(max=self.cap), 1)

    def summed(self, logprobs: Tensor, sampled: Tensor) -> Tensor:
        """Log-probs of what has a weight of its own: here, of each token. `[N, C]`"""
        return torch.where(sampled, logprobs, 0)


@dataclass(frozen=True)
class HybridSequenceImportance(HybridImportance):
    """`HybridImportance` with the probabilities of whole traces: one weight for all tokens of a trace.

    Unbiased up to its cap; a trace that is unlikely without the answer has almost no weight.

    Args:
        cap: upper bound of the weights.

    Raises:
        InputError: if `cap` is not above 0.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.1]]).log(), torch.tensor([[0.5, 0.9]]).log()
        >>> HybridSequenceImportance()(p, q, torch.tensor([0.5]), torch.ones(1, 2, dtype=torch.bool))
        tensor([[0.2000, 0.2000]])
    """

    def summed(self, logprobs: Tensor, sampled: Tensor) -> Tensor:
        """Log-probs of the traces, for each of their tokens. `[N, C]`"""
        return super().summed(logprobs, sampled).sum(dim=1, keepdim=True).expand_as(logprobs)
