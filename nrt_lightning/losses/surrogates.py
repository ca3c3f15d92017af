"""Per-token policy-gradient losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, check_at_least, check_interval, masked_mean

MAX_LOG_RATIO = 20.0  # exp(20) = 5e8, beyond any clip range and far from overflow


@dataclass
class SurrogateOutput:
    """The loss of each token, and the clipped tokens."""

    loss: Tensor  # [N, C]
    clipped: Tensor  # [N, C] bool; True for tokens without gradient because their ratio is out of bounds


class Surrogate(ABC):
    """A per-token loss whose gradient is the policy gradient if `ratio = pi / pi_old` is close to 1."""

    drops_clipped: ClassVar[bool] = False  # True if the denominators of means do not count clipped tokens
    uses_ratio: ClassVar[bool] = True  # False: the loss is right on-policy only

    @abstractmethod
    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor | None = None
    ) -> SurrogateOutput:
        """Compute the loss of each token.

        Args:
            logprobs: `[N, C]` of the policy, with gradient.
            old_logprobs: `[N, C]` of the old policy; detached.
            advantages: `[N, C]`, or `[N, 1]` for one advantage per trace.
            mask: `[N, C]` bool, the tokens of the trace term; None for all.

        Returns:
            Loss and clipped tokens, `[N, C]`.
        """


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Compute `exp(logprobs - old_logprobs)`, clamped to exp(-20)..exp(20).

    Args:
        logprobs: `[N, C]` of the policy, in nats.
        old_logprobs: `[N, C]` of the old policy; detached, even if it is the same tensor.

    Returns:
        `[N, C]` in float32 or float64.

    Example:
        >>> importance_ratio(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.5, 0.25]).log())
        tensor([1., 2.])
    """
    log_ratio = at_least_float32(logprobs) - at_least_float32(old_logprobs).detach()
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def moved_outside(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Find the tokens whose ratio is out of bounds in the direction of their advantage. `[N, C]` bool

    Example:
        >>> moved_outside(torch.tensor([1.5, 1.5, 0.5]), torch.tensor([1.0, -1.0, -1.0]), 0.8, 1.28)
        tensor([ True, False,  True])
    """
    return ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))


@dataclass(frozen=True)
class CISPO(Surrogate):
    """`-A sg(clamp(ratio, ratio_low, ratio_high)) logprobs`, without tokens whose ratio is out of bounds.

    The clamped ratio is a constant weight (sg stops its gradient), so tokens keep their gradient where `ClippedRatio`
    would set it to 0 (arXiv 2506.13585). As in the code of arXiv 2602.11549, tokens are dropped, also from
    denominators, if A > 0 and ratio > `drop_above`, or A < 0 and ratio < `drop_below`. On-policy the ratio is 1 and
    this is the plain policy gradient.

    Args:
        ratio_low: lower bound of the weight; 0 for none.
        ratio_high: upper bound of the weight.
        drop_below: ratio below which tokens with a negative advantage are dropped; 0 for never.
        drop_above: ratio above which tokens with a positive advantage are dropped; `.inf` for never.

    Raises:
        InputError: if bounds are negative or out of order.

    Example:
        >>> old = torch.tensor([[0.5, 0.5, 0.5]]).log()
        >>> out = CISPO()(torch.tensor([[0.5, 0.9, 0.25]]).log(), old, torch.tensor([[1.0]]))
        >>> out.loss, out.clipped  # weights 1, 1.28 and 0.8; the ratio of the second token is above 1.28
        (tensor([[0.6931, 0.1349, 1.1090]]), tensor([[False,  True, False]]))
    """

    drops_clipped: ClassVar[bool] = True
    ratio_low: float = 0.8
    ratio_high: float = 1.28
    drop_below: float = 0.8
    drop_above: float = 1.28

    def __post_init__(self) -> None:
        check_interval("ratio_low", self.ratio_low, "ratio_high", self.ratio_high)
        check_interval("drop_below", self.drop_below, "drop_above", self.drop_above)

    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor | None = None
    ) -> SurrogateOutput:
        """Loss and clipped tokens, `[N, C]`."""
        ratio = importance_ratio(logprobs, old_logprobs).detach()  # [N, C]
        loss = -advantages * ratio.clamp(self.ratio_low, self.ratio_high) * at_least_float32(logprobs)
        return SurrogateOutput(loss, moved_outside(ratio, advantages, self.drop_below, self.drop_above))


@dataclass(frozen=True)
class ClippedRatio(Surrogate):
    """`-min(ratio A, clamp(ratio, 1 - clip_low, 1 + clip_high) A)`: PPO (arXiv 1707.06347).

    The defaults are from DAPO (arXiv 2503.14476). Clipped tokens have gradient 0, but denominators count them.

    Args:
        clip_low: largest decrease of the ratio below 1.
        clip_high: largest increase of the ratio above 1.

    Raises:
        InputError: if a bound is negative.

    Example:
        >>> old = torch.tensor([[0.5, 0.5, 0.5]]).log()
        >>> out = ClippedRatio()(torch.tensor([[0.5, 0.9, 0.25]]).log(), old, torch.tensor([[1.0]]))
        >>> out.loss, out.clipped
        (tensor([[-1.0000, -1.2800, -0.5000]]), tensor([[False,  True, False]]))
    """

    clip_low: float = 0.2
    clip_high: float = 0.28

    def __post_init__(self) -> None:
        check_at_least("clip_low", self.clip_low, 0)
        check_at_least("clip_high", self.clip_high, 0, infinite=True)

    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor | None = None
    ) -> SurrogateOutput:
        """Loss and clipped tokens, `[N, C]`."""
        low, high = 1 - self.clip_low, 1 + self.clip_high
        ratio = importance_ratio(logprobs, old_logprobs)  # [N, C]
        loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
        return SurrogateOutput(loss, moved_outside(ratio.detach(), advantages, low, high))


@dataclass(frozen=True)
class ClippedSequenceRatio(ClippedRatio):
    """`ClippedRatio` with the ratio of the whole trace, `s = exp(mean_t (log pi - log pi_old))`: GSPO.

    Clipped are all tokens of a trace or none. The gradient of `s` is spread evenly over the tokens (arXiv 2507.18071,
    with 3e-4 and 4e-4).

    Args:
        clip_low: largest decrease of the ratio below 1.
        clip_high: largest increase of the ratio above 1.

    Raises:
        InputError: if a bound is negative.

    Example:
        >>> old = torch.tensor([[0.5, 0.5]]).log()
        >>> ClippedSequenceRatio(0.2, 0.2)(torch.tensor([[0.5, 0.55]]).log(), old, torch.tensor([[1.0]])).loss
        tensor([[-1.0488, -1.0488]])
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4

    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor | None = None
    ) -> SurrogateOutput:
        """Loss and clipped tokens, `[N, C]`."""
        difference = at_least_float32(logprobs) - at_least_float32(old_logprobs).detach()  # [N, C]
        mask = torch.ones_like(difference, dtype=torch.bool) if mask is None else mask
        mean = masked_mean(difference, mask, dim=1).unsqueeze(1)  # [N, 1]
        return super().__call__(mean.expand_as(difference), torch.zeros_like(difference), advantages, mask)


@dataclass(frozen=True)
class PolicyGradient(Surrogate):
    """`-A logprobs`: REINFORCE, for on-policy data. Used by VeriFree (arXiv 2505.21493).

    Example:
        >>> PolicyGradient()(torch.tensor([[-0.5]]), torch.tensor([[-9.0]]), torch.tensor([[2.0]])).loss
        tensor([[1.]])
    """

    uses_ratio = False

    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor | None = None
    ) -> SurrogateOutput:
        """Loss and clipped tokens, `[N, C]`."""
        logprobs = at_least_float32(logprobs)
        return SurrogateOutput(-advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool))
