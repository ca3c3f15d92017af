"""Correction for a sampler whose probabilities are not those of the trainer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import check_at_least, masked_mean
from nrt_lightning.losses.surrogates import importance_ratio


@dataclass(frozen=True)
class TruncatedImportance:
    """`min(pi_old / pi_sampler, cap)` for each sampled token, a constant weight of its trace loss.

    Traces come from the sampler's distribution, which differs from the trainer's old policy where they run in another
    engine or precision, or at a temperature or with tokens kept out. Without a correction the data is off-policy from
    the first step. The cap bounds the variance (F. Yao et al., "Your Efficient RL Framework Secretly Brings You
    Off-Policy RL Training", 2025, https://fengyao.notion.site/off-policy-rl, who use 2). It is apart from the
    surrogate's ratio pi / pi_old, which is 1 at the first step of a window.

    Args:
        cap: largest weight.

    Raises:
        InputError: if `cap` is not above 0.

    Example:
        >>> old, sampler = torch.tensor([[0.5, 0.5, 0.5]]).log(), torch.tensor([[0.5, 0.625, 0.1]]).log()
        >>> TruncatedImportance()(old, sampler, torch.ones(1, 3, dtype=torch.bool))
        tensor([[1.0000, 0.8000, 2.0000]])
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        check_at_least("sampler_correction.cap", self.cap, 0, above=True)

    def __call__(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
        """Weights, 1 where nothing was sampled.

        Args:
            old_logprobs: `[N, C]` of the old policy, as the trainer computes them.
            sampling_logprobs: `[N, C]` of the sampler.
            sampled: `[N, C]` bool, the tokens it sampled.

        Returns:
            `[N, C]`, without gradient.
        """
        ratio = sampler_ratio(old_logprobs, sampling_logprobs, sampled)
        return ratio.clamp(max=self.cap)

    def metrics(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        """What is to be known of the mismatch, over the sampled tokens.

        Returns:
            `sampler_ratio_mean` and `_max`; `sampler_capped_share`; `sampler_difference_mean` and `_max`, of
            `|log pi_old - log pi_sampler|` in nats.
        """
        ratio = sampler_ratio(old_logprobs, sampling_logprobs, sampled)  # [N, C]
        difference = torch.where(sampled, (old_logprobs.detach() - sampling_logprobs).abs(), 0)  # [N, C]
        return {
            "sampler_ratio_mean": masked_mean(ratio, sampled),
            "sampler_ratio_max": torch.where(sampled, ratio, 0).max(),
            "sampler_capped_share": masked_mean((ratio > self.cap).to(ratio.dtype), sampled),
            "sampler_difference_mean": masked_mean(difference, sampled),
            "sampler_difference_max": difference.max(),
        }


def sampler_ratio(old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
    """`pi_old / pi_sampler` where a token was sampled, 1 elsewhere. [N, C]"""
    difference = torch.where(sampled, old_logprobs.detach() - sampling_logprobs, 0)
    return importance_ratio(difference, torch.zeros_like(difference))
