"""KL penalty in the reward."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nrt_lightning.functional import K1, KLEstimator, check_at_least, masked_sum


@dataclass(frozen=True)
class KLPenalty:
    """`R <- R - coef * sum_t KL_t`, summed over the sampled tokens, with KL_t the estimate for token t.

    With `K1` the policy gradient of the penalty is the gradient of `-coef KL(policy || reference)`, the objective of
    RLHF (arXiv 1909.08593). As a term of the loss (`NRTLoss.kl_coef`), `K2` has this gradient; `K3`, used by GRPO, has
    the gradient of KL(reference || policy). The empty trace has no sampled tokens and no penalty.

    Args:
        coef: penalty per nat.
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
        """Subtract the penalty from the rewards.

        Args:
            values: `[N]` trace rewards.
            logprobs: `[N, C]` of the policy that sampled the traces, in nats.
            ref_logprobs: `[N, C]` of the reference.
            mask: `[N, C]` bool, the sampled tokens.

        Returns:
            `[N]` penalized rewards.
        """
        return values - self.coef * masked_sum(self.kl(logprobs, ref_logprobs), mask, dim=1)
