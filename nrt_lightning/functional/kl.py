"""Per-token estimators of KL(policy || reference) from tokens that the policy sampled.

With d = logprobs - ref_logprobs of a sampled token (J. Schulman, "Approximating KL Divergence", 2020,
http://joschu.net/blog/kl-approx.html):

| estimator | value | as an estimate | on-policy gradient, as a loss |
|---|---|---|---|
| `K1` | d | unbiased, high variance, often negative | 0 in expectation: monitor it, do not train on it |
| `K2` | d^2 / 2 | biased, low variance | gradient of KL(policy || reference) |
| `K3` | exp(-d) - 1 + d | unbiased, low variance, never negative | gradient of KL(reference || policy) |

These properties hold only for tokens sampled from the policy, not for the reference answer and forced markers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional.precision import at_least_float32


class KLEstimator(ABC):
    """Estimator of KL(policy || reference) for single tokens."""

    @abstractmethod
    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """Estimate the KL of each token.

        Args:
            logprobs: `[N, C]` of the sampled tokens under the policy, in nats.
            ref_logprobs: `[N, C]` of the same tokens under the reference.

        Returns:
            `[N, C]` in nats, float32 or float64.
        """


@dataclass(frozen=True)
class K1(KLEstimator):
    """`logprobs - ref_logprobs`: unbiased, high variance; as a loss its gradient is 0 in expectation.

    Example:
        >>> K1()(torch.tensor([-1.0]), torch.tensor([-1.5]))
        tensor([0.5000])
    """

    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimates `[N, C]`, in nats."""
        return at_least_float32(logprobs) - at_least_float32(ref_logprobs)


@dataclass(frozen=True)
class K2(KLEstimator):
    """`(logprobs - ref_logprobs)^2 / 2`: biased, low variance; on-policy it has the gradient of the KL.

    Example:
        >>> K2()(torch.tensor([-1.0]), torch.tensor([-1.5]))
        tensor([0.1250])
    """

    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimates `[N, C]`, in nats."""
        return 0.5 * (at_least_float32(logprobs) - at_least_float32(ref_logprobs)) ** 2


@dataclass(frozen=True)
class K3(KLEstimator):
    """`exp(r) - 1 - r` with `r = ref_logprobs - logprobs`: unbiased, low variance, never negative.

    Example:
        >>> K3()(torch.tensor([-1.0]), torch.tensor([-1.5]))
        tensor([0.1065])
    """

    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimates `[N, C]`, in nats."""
        log_ratio = at_least_float32(ref_logprobs) - at_least_float32(logprobs)
        return torch.expm1(log_ratio) - log_ratio  # expm1: no cancellation where the two models agree
