"""Rewards minus the mean of the other rollouts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.advantages.base import BASELINE_USES, AdvantageEstimator, BaselineUse, stabilized_rewards
from nrt_lightning.functional import check_choice, group_statistics


@dataclass(frozen=True)
class LeaveOneOut(AdvantageEstimator):
    """`A_k = R_k - 1/(K-1) sum_{j != k} R_j = (R_k - mean) K/(K-1)`; 0 in a group of one.

    The mean of the others does not depend on rollout k, so the gradient is unbiased (RLOO, arXiv 2402.14740; used by
    VeriFree, arXiv 2505.21493).

    Args:
        baseline: use of the empty trace's reward: "none", "subtract" it (no effect), or "clip" the difference at 0.

    Raises:
        InputError: if `baseline` is unknown.

    Example:
        >>> import torch
        >>> LeaveOneOut()(torch.tensor([1.0, 0.0, 0.5, 0.25]), torch.tensor([0, 0, 0, 1]))
        tensor([ 0.7500, -0.7500,  0.0000,  0.0000])
    """

    baseline: BaselineUse = "none"

    def __post_init__(self) -> None:
        check_choice("baseline", self.baseline, BASELINE_USES)

    @property
    def centered(self) -> bool:
        """True."""
        return True

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of the rewards `values`."""
        rewards = stabilized_rewards(values, baseline_values, self.baseline)  # [N]
        stats = group_statistics(rewards, group_ids, rewards.isfinite())
        return stats.centered * stats.count / (stats.count - 1).clamp(min=1)
