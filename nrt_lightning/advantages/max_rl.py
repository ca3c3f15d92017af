"""Rewards centered and divided by their mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.advantages.base import AdvantageEstimator
from nrt_lightning.errors import InputError
from nrt_lightning.functional import at_least_float32, check_at_least, group_statistics


@dataclass(frozen=True)
class MaxRL(AdvantageEstimator):
    """`A = (r - mean) / (mean + eps)` over the rollouts of a prompt: MaxRL (arXiv 2602.02710).

    With rewards of 0 and 1 the expected gradient approaches that of the log-probability of a right answer, `log p`, as
    groups grow; that of `r - mean` is the gradient of p. A question that is rarely answered has the larger weight 1/p.
    The rewards must be at least 0: around a mean of 0 the advantages would change their signs.

    Args:
        eps: added to the mean.

    Raises:
        InputError: if `eps` is negative, or a reward is.

    Example:
        >>> MaxRL()(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0]))
        tensor([ 3.0000, -1.0000, -1.0000, -1.0000])
    """

    needs_nonnegative = True
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_at_least("eps", self.eps, 0)

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of the rewards `values`."""
        values = at_least_float32(values)
        finite = values.isfinite()
        if bool((finite & (values < 0)).any()):
            lowest = float(values[finite].min())
            raise InputError(
                f"MaxRL got a reward of {lowest:.3g}: it divides by the mean, so rewards must be 0 or more."
            )
        stats = group_statistics(values, group_ids, finite)
        divisor = stats.mean + self.eps
        return torch.where(finite & (divisor > 0), stats.centered / torch.where(divisor > 0, divisor, 1), 0)
