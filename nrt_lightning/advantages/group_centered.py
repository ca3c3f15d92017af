"""Advantages over the mean of the group."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.advantages.base import BASELINE_USES, AdvantageEstimator, BaselineUse, stabilized_rewards
from nrt_lightning.functional import check_choice, group_statistics


@dataclass(frozen=True)
class GroupCentered(AdvantageEstimator):
    """`A_k = R_k - mean` over the rollouts of a prompt, not divided by anything; 0 for a group of one.

    Dr. GRPO (arXiv 2503.20783): dividing by the standard deviation gives questions that are almost always or almost
    never answered more weight than others. Here groups whose rewards differ much push harder. It is
    `LeaveOneOut() * (K-1)/K`, and the same as `GroupNormalized(scale="none")`.

    Args:
        baseline: what to do with the reward of the empty trace: ignore it, subtract it (which changes nothing here),
            or clip the gain over it at 0.

    Raises:
        InputError: if `baseline` is unknown.

    Example:
        >>> import torch
        >>> GroupCentered()(torch.tensor([1.0, 0.0, 0.5, 0.25]), torch.tensor([0, 0, 0, 1]))
        tensor([ 0.5000, -0.5000,  0.0000,  0.0000])
    """

    baseline: BaselineUse = "none"

    def __post_init__(self) -> None:
        check_choice("baseline", self.baseline, BASELINE_USES)

    @property
    def needs_baseline(self) -> bool:
        """Whether the rewards of the empty trace must be given."""
        return self.baseline != "none"

    @property
    def needs_group(self) -> bool:
        """Whether K >= 2 is required: always, or every advantage is 0."""
        return True

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of rewards `[N]`; see `AdvantageEstimator.__call__`."""
        rewards = stabilized_rewards(values, baseline_values, self.baseline)  # [N]
        return group_statistics(rewards, group_ids, rewards.isfinite()).centered
