"""Per-token policy-gradient losses for the sampled tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, check_at_least, check_interval

MAX_LOG_RATIO = 20.0  # exp(20) = 5e8: beyond any clip range, and far from overflow


@dataclass
class SurrogateOutput:
    """The loss of each token, and which tokens the clipping silenced."""

    loss: Tensor  # [N, C]
    clipped: Tensor  # [N, C] bool; True where the token gives no gradient because its ratio has moved far enough


class Surrogate(ABC):
    """A loss whose gradient is the policy gradient, at least where `ratio = pi / pi_old` is close to 1."""

    drops_clipped: ClassVar[bool] = False  # whether clipped tokens leave the denominators of a mean as well

    @abstractmethod
    def __call__(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> SurrogateOutput:
        """Loss of each token.

        Args:
            logprobs: `[N, C]` of the policy, with gradient.
            old_logprobs: `[N, C]` of the old policy; no gradient flows into them.
            advantages: `[N, C]`, or `[N, 1]` for one advantage a trace.

        Returns:
            Loss and clipped tokens, `[N, C]`.
        """


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """`exp(logprobs - old_logprobs)`, bounded to exp(-20)..exp(20).

    Args:
        logprobs: `[N, C]` of the policy, in nats.
        old_logprobs: `[N, C]` of the old policy; treated as constants, also if they are the same tensor.

    Returns:
        `[N, C]` in float32 or float64.

    Example:
        >>> importance_ratio(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.5, 0.25]).log())
        tensor([1., 2.])
    """
    log_ratio = at_least_float32(logprobs) - at_least_float32(old_logprobs).detach()
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def moved_outside(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Tokens already moved beyond the bounds in the direction of their advantage: `[N, C]` bool.

    Example:
        >>> moved_outside(torch.tensor([1.5, 1.5, 0.5]), torch.tensor([1.0, -1.0, -1.0]), 0.8, 1.28)
        tensor([ True, False,  True])
    """
    return ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))


@dataclass(frozen=True)
class CISPO(Surrogate):
    """`-A sg(clamp(ratio, ratio_low, ratio_high)) logprobs`, with tokens that moved far enough left out.

    The clipped ratio is a constant weight (sg stops its gradient), so a token keeps its gradient where `ClippedRatio`
    would lose it (arXiv 2506.13585). As in the code of arXiv 2602.11549 a token is left out altogether, from the
    denominators of a mean too, where A > 0 and ratio > `drop_above`, or A < 0 and ratio < `drop_below`. On-policy
    the ratio is 1 and this is the plain policy gradient.

    Args:
        ratio_low: lower bound of the weight; 0 for none.
        ratio_high: upper bound of the weight.
        drop_below: ratio below which tokens with a negative advantage are left out; 0 for never.
        drop_above: ratio above which tokens with a positive advantage are left out; `.inf` for never.

    Raises:
        InputError: if bounds are negative or in the wrong order.

    Example:
        >>> old = torch.tensor([[0.5, 0.5, 0.5]]).log()
        >>> out = CISPO()(torch.tensor([[0.5, 0.9, 0.25]]).log(), old, torch.tensor([[1.0]]))
        >>> out.loss, out.clipped  # weights 1, 1.28 and 0.8; the second token has risen enough
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

    def __call__(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> SurrogateOutput:
        """Loss `[N, C]` of each token; see `Surrogate.__call__`."""
        ratio = importance_ratio(logprobs, old_logprobs).detach()  # [N, C]
        loss = -advantages * ratio.clamp(self.ratio_low, self.ratio_high) * at_least_float32(logprobs)
        return SurrogateOutput(loss, moved_outside(ratio, advantages, self.drop_below, self.drop_above))


@dataclass(frozen=True)
class ClippedRatio(Surrogate):
    """`-min(ratio A, clamp(ratio, 1 - clip_low, 1 + clip_high) A)`: PPO (arXiv 1707.06347).

    The defaults are those of DAPO (arXiv 2503.14476). Clipped tokens have gradient 0 but stay in the denominators.

    Args:
        clip_low: how far the ratio may fall below 1.
        clip_high: how far the ratio may rise above 1.

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
        check_at_least("clip_high", self.clip_high, 0)

    def __call__(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> SurrogateOutput:
        """Loss `[N, C]` of each token; see `Surrogate.__call__`."""
        low, high = 1 - self.clip_low, 1 + self.clip_high
        ratio = importance_ratio(logprobs, old_logprobs)  # [N, C]
        loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
        return SurrogateOutput(loss, moved_outside(ratio.detach(), advantages, low, high))


@dataclass(frozen=True)
class PolicyGradient(Surrogate):
    """`-A logprobs`: REINFORCE, without ratio or clipping. For on-policy data; used by VeriFree (arXiv 2505.21493).

    Example:
        >>> PolicyGradient()(torch.tensor([[-0.5]]), torch.tensor([[-9.0]]), torch.tensor([[2.0]])).loss
        tensor([[1.]])
    """

    def __call__(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> SurrogateOutput:
        """Loss `[N, C]` of each token; see `Surrogate.__call__`."""
        logprobs = at_least_float32(logprobs)
        return SurrogateOutput(-advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool))
