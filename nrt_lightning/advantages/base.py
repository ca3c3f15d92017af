"""Base class of the advantage estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import at_least_float32, check_same_shape

BaselineUse = Literal["none", "subtract", "clip"]
BASELINE_USES = get_args(BaselineUse)


class AdvantageEstimator(ABC):
    """Computes advantages from trace rewards.

    Rows whose reward is infinite or NaN are excluded from the statistics and get advantage 0.

    A subclass implements `__call__` and overrides the properties and attributes that differ.
    """

    needs_nonnegative = False  # True if the rewards must be at least 0
    needs_logprobs = False  # True if the rewards must be log-probs of the answers
    needs_batch = False  # True if it must be called with all rollouts of a window at once
    baseline = "none"  # most estimators redefine it as a field; an annotation here would break jsonargparse

    @property
    def needs_baseline(self) -> bool:
        """True if `baseline_values` is required."""
        return self.baseline != "none"

    @property
    def centered(self) -> bool:
        """True if the mean of the advantages is 0 in every group, whatever the rewards."""
        return False

    @property
    def needs_group(self) -> bool:
        """True if it compares the rollouts of a prompt and needs K >= 2 of them."""
        return True

    @abstractmethod
    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Compute the advantages of N rollouts.

        Args:
            values: `[N]` trace rewards R.
            group_ids: `[N]` integers, any values in any order; rollouts of the same prompt have the same id.
            baseline_values: `[N]` reward of the empty trace of each rollout's prompt.

        Returns:
            `[N]`, finite, in float32 or float64.

        Raises:
            InputError: if shapes differ or a required baseline is missing.
        """


def stabilized_rewards(values: Tensor, baseline_values: Tensor | None, use: BaselineUse) -> Tensor:
    """Compare rewards with the reward of the empty trace.

    Args:
        values: `[N]` trace rewards R.
        baseline_values: `[N]` rewards of the empty trace; not read if `use` is "none".
        use: "none" returns R, "subtract" returns `R - R_baseline`, and "clip" returns `max(0, R - R_baseline)` (arXiv
            2602.11549).

    Returns:
        `[N]` in float32 or float64; not finite where a reward is not.

    Raises:
        InputError: if shapes differ or a required baseline is missing.

    Example:
        >>> import torch
        >>> stabilized_rewards(torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5]), "clip")
        tensor([0.2500, 0.0000])
    """
    values = at_least_float32(values)
    if use == "none":
        return values
    if baseline_values is None:
        raise InputError(
            f"baseline={use!r} requires baseline_values [N], the rewards of the empty traces. Pass them, or set "
            'baseline="none".'
        )
    check_same_shape(
        "baseline_values", baseline_values, "values", values, "Repeat the value of each prompt for its K rollouts."
    )
    gain = values - baseline_values
    # A gain of minus infinity stays what it is: clipped to 0 it would count in its group.
    return gain.clamp(min=0).where(gain.isfinite(), gain) if use == "clip" else gain
