"""KL against the reference as a part of the reward."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nrt_lightning.functional import K1, KLEstimator, check_at_least, masked_sum


@dataclass(frozen=True)
class KLPenalty:
    """`R <- R - coef * sum_t KL_t` over the tokens that the policy sampled, with KL_t the estimate of one token.

    The policy gradient of a reward with `K1` in it is that of `-coef KL(policy || reference)`, the objective of RLHF
    (arXiv 1909.08593). In the loss (`NRTLoss.kl_coef`) `K2` has that gradient; `K3`, as in GRPO, that of the KL the
    other way round. The empty trace has no sampled token, so the baseline's reward has no penalty.

    Args:
        coef: weight of the penalty, for each nat.
        kl: the estimator.

    Raises:
        InputError: if `coef` is negative.

    Example:
        >>> import torch
        >>> policy, reference = torch.tensor([[-1.0, -1.0, -9.0]]), torch.tensor([[-1.5, -2.0, -3.0]])
        >>> KLPenalty(coef=0.1)(torch.tensor([0.8]), policy, reference, torch.tensor([[True, True, False]]))
        tensor([0.6500])
    """

    coef: float = 0.001
    kl: KLEstimator = field(default_factory=K1)

    def __post_init__(self) -> None:
        check_at_least("kl_penalty.coef", self.coef, 0)

    def __call__(self, values: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
        """Rewards with the penalty, `[N]`.

        Args:
            values: `[N]` trace rewards.
            logprobs: `[N, C]` of the policy that sampled them.
            ref_logprobs: `[N, C]` of the reference.
            mask: `[N, C]` bool, the sampled tokens.
        """
        return values - self.coef * masked_sum(self.kl(logprobs, ref_logprobs), mask, dim=1)
