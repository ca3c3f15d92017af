"""Rewards centered and scaled within the group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from nrt_lightning.advantages.base import BASELINE_USES, AdvantageEstimator, BaselineUse, stabilized_rewards
from nrt_lightning.functional import check_at_least, check_choice, group_normalize


@dataclass(frozen=True)
class GroupNormalized(AdvantageEstimator):
    """`A = (R' - mean) / (std + eps)` over the rollouts of a prompt, with the unbiased standard deviation.

    The advantages are 0 if all rewards of the group are equal, and in a group of one. Published forms:

    - `GroupNormalized()`: R' = R, the authors' code of arXiv 2602.11549.
    - `GroupNormalized(baseline="clip")`: R' = max(0, R - R_baseline), the text of arXiv 2602.11549. All traces worse
      than no trace have the same advantage.
    - `GroupNormalized(scale="none")`: `R - mean`, Dr. GRPO (arXiv 2503.20783). Dividing by the standard deviation would
      give questions that are almost always or almost never answered more weight. Equal to `LeaveOneOut() * (K-1)/K`.

    With `eps=0` the size of an advantage does not depend on the size of the differences between rewards: differences of
    1e-6 have the same effect as differences of 0.5.

    Args:
        baseline: use of the empty trace's reward: "none", "subtract" it (no effect if centered), or "clip" the
            difference at 0.
        scale: divide by the standard deviation ("std") or not ("none").
        eps: added to the standard deviation.
        center: subtract the mean of the group.

    Raises:
        InputError: if a setting is unknown or `eps` is negative.

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
    center: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_choice("baseline", self.baseline, BASELINE_USES)
        check_choice("scale", self.scale, ("std", "none"))
        check_at_least("eps", self.eps, 0)

    @property
    def centered(self) -> bool:
        """True if the mean of the group is subtracted."""
        return self.center

    @property
    def needs_group(self) -> bool:
        """True if centered or scaled."""
        return self.center or self.scale == "std"

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of the rewards `values`."""
        rewards = stabilized_rewards(values, baseline_values, self.baseline)  # [N]
        finite = rewards.isfinite()
        return group_normalize(rewards, group_ids, finite, center=self.center, scale=self.scale == "std", eps=self.eps)
