"""Per-token estimators of KL(policy || reference) from tokens that the policy sampled.

With d = logprobs - ref_logprobs of a sampled token (J. Schulman, "Approximating KL Divergence", 2020,
http://joschu.net/blog/kl-approx.html):

| estimator | value | as an estimate | its gradient, used as a loss |
|---|---|---|---|
| `K1` | d | unbiased, high variance, negative on many tokens | 0 in expectation: monitor it, do not train on it |
| `K2` | d^2 / 2 | biased, low variance | the gradient of KL(policy || reference), on-policy |
| `K3` | exp(-d) - 1 + d | unbiased, low variance, never negative | that of KL(reference || policy), on-policy |

All hold only for sampled tokens: the reference answer and forced markers were not drawn from the policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional.precision import at_least_float32


class KLEstimator(ABC):
    """Estimates KL(policy || reference), token by token."""

    @abstractmethod
    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimate in nats, `[N, C]`, from log-probs of the same tokens under policy and reference `[N, C]`."""


@dataclass(frozen=True)
class K1(KLEstimator):
    """`logprobs - ref_logprobs`: unbiased, with high variance. As a loss its gradient vanishes in expectation.

    Example:
        >>> K1()(torch.tensor([-1.0]), torch.tensor([-1.5]))
        tensor([0.5000])
    """

    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimate in nats, `[N, C]`, from log-probs of the same tokens under policy and reference `[N, C]`."""
        return at_least_float32(logprobs) - at_least_float32(ref_logprobs)


@dataclass(frozen=True)
class K2(KLEstimator):
    """`(logprobs - ref_logprobs)^2 / 2`: biased, with low variance. Its gradient is that of the KL, on-policy.

    Example:
        >>> K2()(torch.tensor([-1.0]), torch.tensor([-1.5]))
        tensor([0.1250])
    """

    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimate in nats, `[N, C]`, from log-probs of the same tokens under policy and reference `[N, C]`."""
        return 0.5 * (at_least_float32(logprobs) - at_least_float32(ref_logprobs)) ** 2


@dataclass(frozen=True)
class K3(KLEstimator):
    """`exp(r) - 1 - r` with `r = ref_logprobs - logprobs`: unbiased, with low variance, never negative.

    Example:
        >>> K3()(torch.tensor([-1.0]), torch.tensor([-1.5]))
        tensor([0.1065])
    """

    def __call__(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """The estimate in nats, `[N, C]`, from log-probs of the same tokens under policy and reference `[N, C]`."""
        log_ratio = at_least_float32(ref_logprobs) - at_least_float32(logprobs)
        return torch.expm1(log_ratio) - log_ratio  # expm1: no cancellation where the two models agree
