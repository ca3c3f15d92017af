"""Rewards normalized over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nrt_lightning.advantages.base import BASELINE_USES, AdvantageEstimator, BaselineUse, stabilized_rewards
from nrt_lightning.functional import check_at_least, check_choice, group_normalize, group_statistics


@dataclass(frozen=True)
class BatchNormalized(AdvantageEstimator):
    """`A = (D - mean(D)) / (std(D) + eps)` over the batch, with D = R - mean of the group, or D = R.

    REINFORCE++ (arXiv 2501.03262): all groups have the same scale, so small differences within a group stay small.
    `center="group"` is its variant with a baseline (the mean of D is then 0). `center="batch"` is the variant without,
    and works with one rollout per prompt. The standard deviation is unbiased; the advantages are 0 if all D are equal.

    The batch is the rollout window of all processes, without filtered groups.

    Args:
        center: subtract the mean of the `group` first, or only the mean of the `batch`.
        baseline: use of the empty trace's reward: "none", "subtract" it, or "clip" the difference at 0.
        eps: added to the standard deviation.

    Raises:
        InputError: if a setting is unknown or `eps` is negative.

    Example:
        >>> rewards, groups = torch.tensor([1.0, 0.0, 0.6, 0.4]), torch.tensor([0, 0, 1, 1])
        >>> BatchNormalized()(rewards, groups)
        tensor([ 1.2010, -1.2010,  0.2402, -0.2402])
    """

    needs_batch = True
    center: Literal["group", "batch"] = "group"
    baseline: BaselineUse = "none"
    eps: float = 0.0

    def __post_init__(self) -> None:
        check_choice("center", self.center, ("group", "batch"))
        check_choice("baseline", self.baseline, BASELINE_USES)
        check_at_least("eps", self.eps, 0)

    @property
    def needs_group(self) -> bool:
        """True if centered within groups."""
        return self.center == "group"

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of the rewards `values`."""
        rewards = stabilized_rewards(values, baseline_values, self.baseline)  # [N]
        finite = rewards.isfinite()
        if self.center == "group":
            rewards = group_statistics(rewards, group_ids, finite).centered
        return group_normalize(rewards, torch.zeros_like(group_ids), finite, eps=self.eps)
