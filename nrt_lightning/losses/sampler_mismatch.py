"""Importance weights for samplers whose probabilities differ from the trainer's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.functional import check_at_least, check_interval, masked_mean
from nrt_lightning.losses.surrogates import importance_ratio


class SamplerCorrection(ABC):
    """A constant weight of the trace loss of each sampled token, from `pi_old / pi_sampler`.

    The sampler's distribution differs from the trainer's old policy if it runs in another engine or precision, uses a
    temperature, or excludes tokens. Without a correction the data is then off-policy from the first step. The
    surrogate's ratio pi / pi_old is separate: it is 1 in the first step of a window.
    """

    @abstractmethod
    def bounded(self, ratio: Tensor) -> Tensor:
        """The weights of the ratios. `[N, C]`"""

    def ratio(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
        """The ratio whose bounds are set, `[N, C]`: that of each token."""
        return sampler_ratio(old_logprobs, sampling_logprobs, sampled)

    def __call__(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
        """Compute the weights.

        Args:
            old_logprobs: `[N, C]` of the old policy, computed by the trainer.
            sampling_logprobs: `[N, C]` of the sampler.
            sampled: `[N, C]` bool, the sampled tokens.

        Returns:
            `[N, C]`, detached; 1 for tokens that were not sampled.
        """
        weights = self.bounded(self.ratio(old_logprobs, sampling_logprobs, sampled))
        return torch.where(sampled, weights, 1)

    def metrics(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        """Compute metrics of the mismatch over the sampled tokens.

        Returns:
            `sampler_ratio_mean` and `sampler_ratio_max`; `sampler_capped_share`, the fraction of changed weights;
            `sampler_difference_mean` and `sampler_difference_max` of `|log pi_old - log pi_sampler|`, in nats.
        """
        ratio = self.ratio(old_logprobs, sampling_logprobs, sampled)  # [N, C]
        difference = torch.where(sampled, (old_logprobs.detach() - sampling_logprobs).abs(), 0)  # [N, C]
        return {
            "sampler_ratio_mean": masked_mean(ratio, sampled),
            "sampler_ratio_max": torch.where(sampled, ratio, 0).max(),
            "sampler_capped_share": masked_mean((self.bounded(ratio) != ratio).to(ratio.dtype), sampled),
            "sampler_difference_mean": masked_mean(difference, sampled),
            "sampler_difference_max": difference.max(),
        }


class OfSequences(SamplerCorrection):
    """A `SamplerCorrection` with one ratio for all sampled tokens of a row, that of the whole sequence."""

    mean = False  # redefined as a field

    def ratio(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
        """`prod_t pi_old / pi_sampler` of each row, or its geometric mean; 1 for tokens that were not sampled."""
        difference = torch.where(sampled, old_logprobs.detach() - sampling_logprobs, 0)  # [N, C]
        total = difference.sum(dim=1, keepdim=True)  # [N, 1]
        if self.mean:
            total = total / sampled.sum(dim=1, keepdim=True).clamp(min=1)
        ratio = importance_ratio(total, torch.zeros_like(total)).expand_as(difference)
        return torch.where(sampled, ratio, 1)


@dataclass(frozen=True)
class TruncatedImportance(SamplerCorrection):
    """`min(pi_old / pi_sampler, cap)` of each token.

    The cap bounds the variance (F. Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL
    Training", 2025, https://fengyao.notion.site/off-policy-rl, who use 2).

    Args:
        cap: upper bound of the weights.

    Raises:
        InputError: if `cap` is not above 0.

    Example:
        >>> old, sampler = torch.tensor([[0.5, 0.5, 0.5]]).log(), torch.tensor([[0.5, 0.625, 0.1]]).log()
        >>> TruncatedImportance()(old, sampler, torch.ones(1, 3, dtype=torch.bool))
        tensor([[1.0000, 0.8000, 2.0000]])
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        check_at_least("sampler_correction.cap", self.cap, 0, above=True, infinite=True)

    def bounded(self, ratio: Tensor) -> Tensor:
        """The ratios, at most `cap`. `[N, C]`"""
        return ratio.clamp(max=self.cap)


@dataclass(frozen=True)
class MaskedImportance(SamplerCorrection):
    """`pi_old / pi_sampler` of each token, and 0 where it is out of bounds (IcePop, arXiv 2510.18855).

    Args:
        low: lower bound of the ratios that count.
        high: upper bound of the ratios that count.

    Raises:
        InputError: if bounds are negative or out of order.

    Example:
        >>> old, sampler = torch.tensor([[0.5, 0.5, 0.5]]).log(), torch.tensor([[0.5, 0.625, 0.05]]).log()
        >>> MaskedImportance()(old, sampler, torch.ones(1, 3, dtype=torch.bool))
        tensor([[1.0000, 0.8000, 0.0000]])
    """

    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        check_interval("sampler_correction.low", self.low, "sampler_correction.high", self.high)

    def bounded(self, ratio: Tensor) -> Tensor:
        """The ratios, 0 out of bounds. `[N, C]`"""
        return torch.where((ratio >= self.low) & (ratio <= self.high), ratio, 0)


@dataclass(frozen=True)
class TruncatedSequenceImportance(OfSequences, TruncatedImportance):
    """`min(prod_t pi_old / pi_sampler, cap)`, the weight of all tokens of a trace.

    The weight of a token alone ignores that its prefix was drawn from another distribution, too; that of the sequence
    is unbiased up to its cap, with more variance.

    Args:
        cap: upper bound of the weights.
        mean: take the geometric mean over the tokens instead of their product.

    Raises:
        InputError: if `cap` is not above 0.

    Example:
        >>> old, sampler = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.4, 0.4]]).log()
        >>> TruncatedSequenceImportance()(old, sampler, torch.ones(1, 2, dtype=torch.bool))
        tensor([[1.5625, 1.5625]])
    """

    mean: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class MaskedSequenceImportance(OfSequences, MaskedImportance):
    """`prod_t pi_old / pi_sampler` for all tokens of a trace, and 0 for a trace whose product is out of bounds.

    Args:
        low: lower bound of the ratios that count.
        high: upper bound of the ratios that count.
        mean: take the geometric mean over the tokens instead of their product.

    Raises:
        InputError: if bounds are negative or out of order.

    Example:
        >>> old, sampler = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.2, 0.2]]).log()
        >>> MaskedSequenceImportance()(old, sampler, torch.ones(1, 2, dtype=torch.bool))
        tensor([[0., 0.]])
    """

    mean: bool = field(default=False, kw_only=True)


def sampler_ratio(old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
    """`pi_old / pi_sampler` of sampled tokens, 1 for others. `[N, C]`"""
    difference = torch.where(sampled, old_logprobs.detach() - sampling_logprobs, 0)
    return importance_ratio(difference, torch.zeros_like(difference))
