"""Scaled and clipped advantages."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.advantages.base import AdvantageEstimator
from nrt_lightning.advantages.leave_one_out import LeaveOneOut
from nrt_lightning.functional import check_at_least, group_statistics


@dataclass(frozen=True)
class ClippedAdvantages(AdvantageEstimator):
    """`clip(A_k / std(A), -bound, bound)` of the advantages A of another estimator.

    Post-processing of JEPO (arXiv 2503.19618, appendix B.2, bound 1), important there because log-probs range widely.
    The paper does not say over which samples the standard deviation is taken; here it is the group.

    Args:
        of: the other estimator.
        bound: largest absolute value.

    Raises:
        InputError: if `bound` is not above 0.

    Example:
        >>> rewards, groups = torch.tensor([-1.0, -2.0, -2.0, -9.0]), torch.tensor([0, 0, 0, 0])
        >>> ClippedAdvantages()(rewards, groups)
        tensor([ 0.6763,  0.4058,  0.4058, -1.0000])
    """

    of: AdvantageEstimator = field(default_factory=LeaveOneOut)
    bound: float = 1.0

    def __post_init__(self) -> None:
        check_at_least("bound", self.bound, 0, above=True, infinite=True)

    @property
    def needs_baseline(self) -> bool:
        """True if the other estimator needs a baseline."""
        return self.of.needs_baseline

    @property
    def needs_nonnegative(self) -> bool:  # type: ignore[override]
        """True if the other estimator needs rewards of at least 0."""
        return self.of.needs_nonnegative

    @property
    def needs_logprobs(self) -> bool:  # type: ignore[override]
        """True if the other estimator needs log-probs."""
        return self.of.needs_logprobs

    @property
    def needs_batch(self) -> bool:  # type: ignore[override]
        """True if the other estimator needs all rollouts of a window."""
        return self.of.needs_batch

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of the rewards `values`."""
        advantages = self.of(values, group_ids, baseline_values)
        known = values.isfinite()
        if self.needs_baseline and baseline_values is not None:
            known = known & baseline_values.isfinite()
        std = group_statistics(advantages, group_ids, known).std
        scaled = torch.where(std > 0, advantages / torch.where(std > 0, std, 1), 0)
        return scaled.clamp(-self.bound, self.bound)
