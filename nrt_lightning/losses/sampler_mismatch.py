"""Importance weights for samplers whose probabilities differ from the trainer's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import check_at_least, masked_mean
from nrt_lightning.losses.surrogates import importance_ratio


@dataclass(frozen=True)
class TruncatedImportance:
    """`min(pi_old / pi_sampler, cap)`, a constant weight of the trace loss of each sampled token.

    The sampler's distribution differs from the trainer's old policy if it runs in another engine or precision, uses a
    temperature, or excludes tokens. Without a correction the data is then off-policy from the first step. The cap
    bounds the variance (F. Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025,
    https://fengyao.notion.site/off-policy-rl, who use 2). The surrogate's ratio pi / pi_old is separate: it is 1 in
    the first step of a window.

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
        check_at_least("sampler_correction.cap", self.cap, 0, above=True)

    def __call__(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> Tensor:
        """Compute the weights.

        Args:
            old_logprobs: `[N, C]` of the old policy, computed by the trainer.
            sampling_logprobs: `[N, C]` of the sampler.
            sampled: `[N, C]` bool, the sampled tokens.

        Returns:
            `[N, C]`, detached; 1 for tokens that were not sampled.
        """
        return sampler_ratio(old_logprobs, sampling_logprobs, sampled).clamp(max=self.cap)

    def metrics(self, old_logprobs: Tensor, sampling_logprobs: Tensor, sampled: Tensor) -> dict[str, Tensor]:
        """Compute metrics of the mismatch over the sampled tokens.

        Returns:
            `sampler_ratio_mean` and `sampler_ratio_max`; `sampler_capped_share`, the fraction of capped weights;
            `sampler_difference_mean` and `sampler_difference_max` of `|log pi_old - log pi_sampler|`, in nats.
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
    """`pi_old / pi_sampler` of sampled tokens, 1 for others. `[N, C]`"""
    difference = torch.where(sampled, old_logprobs.detach() - sampling_logprobs, 0)
    return importance_ratio(difference, torch.zeros_like(difference))
