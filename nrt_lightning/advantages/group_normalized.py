"""Advantages centered and scaled within the group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nrt_lightning.advantages.base import BASELINE_USES, AdvantageEstimator, BaselineUse, stabilized_rewards
from nrt_lightning.functional import check_at_least, check_choice, group_normalize


@dataclass(frozen=True)
class GroupNormalized(AdvantageEstimator):
    """`A = (R' - mean) / (std + eps)` over the rollouts of a prompt, with the unbiased standard deviation.

    0 where all rewards of the group are equal, and for a group of one. Two published forms (arXiv 2602.11549):

    - `GroupNormalized()`: the authors' code. R' = R.
    - `GroupNormalized(baseline="clip")`: the paper's text. R' = max(0, R - R_baseline): traces that help less than
      no trace are all alike, so that of the bad ones none is preferred.

    With `eps=0` the size of an advantage does not depend on how far the rewards are apart: differences of 1e-6
    push as hard as differences of 0.5.

    Args:
        baseline: what to do with the reward of the empty trace: ignore it, subtract it (which only matters without
            `center`), or clip the gain over it at 0.
        scale: divide by the standard deviation of the group, or not.
        eps: added to the standard deviation.
        center: subtract the mean of the group.

    Raises:
        InputError: if a setting is unknown or `eps` negative.

    Example:
        >>> import torch
        >>> rewards, groups = torch.tensor([0.75, 0.25, 0.5]), torch.tensor([0, 0, 0])
        >>> GroupNormalized()(rewards, groups)
        tensor([ 1., -1.,  0.])
        >>> GroupNormalized(baseline="clip", scale="none")(rewards, groups, torch.full((3,), 0.6))
        tensor([ 0.1000, -0.0500, -0.0500])
    """

    baseline: BaselineUse = "none"
    scale: Literal["std", "none"] = "std"
    eps: float = 0.0
    center: bool = True

    def __post_init__(self) -> None:
        check_choice("baseline", self.baseline, BASELINE_USES)
        check_choice("scale", self.scale, ("std", "none"))
        check_at_least("eps", self.eps, 0)

    @property
    def needs_baseline(self) -> bool:
        """Whether the rewards of the empty trace must be given."""
        return self.baseline != "none"

    @property
    def needs_group(self) -> bool:
        """Whether K >= 2 is required: not if rewards are neither centered nor scaled."""
        return self.center or self.scale == "std"

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of rewards `[N]`; see `AdvantageEstimator.__call__`."""
        rewards = stabilized_rewards(values, baseline_values, self.baseline)  # [N]
        finite = rewards.isfinite()
        return group_normalize(rewards, group_ids, finite, self.center, self.scale == "std", self.eps)
