"""What every advantage estimator shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import at_least_float32, check_same_shape

BaselineUse = Literal["none", "subtract", "clip"]
BASELINE_USES = get_args(BaselineUse)


class AdvantageEstimator(ABC):
    """Turns the trace rewards of a group into advantages.

    A row whose reward is not finite (a reward of minus infinity, or NaN) cannot be compared: it is left out of its
    group's statistics and gets advantage 0, and neither its own group nor any other is disturbed.
    """

    needs_logprobs = False  # whether rewards must be log-probs
    needs_batch = False  # whether it looks beyond the group: all rollouts of a window are then given

    @property
    @abstractmethod
    def needs_baseline(self) -> bool:
        """Whether the rewards of the empty trace must be given."""

    @property
    @abstractmethod
    def needs_group(self) -> bool:
        """Whether an advantage needs at least two rollouts of the same prompt (K >= 2)."""

    @abstractmethod
    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages of N rollouts.

        Args:
            values: `[N]` trace rewards R.
            group_ids: `[N]` integers, any values in any order; rows with the same id answer the same prompt.
            baseline_values: `[N]` R of the empty trace, for each rollout that of its prompt.

        Returns:
            `[N]` finite, in float32 or float64.

        Raises:
            InputError: if shapes differ, or a baseline is needed and missing.
        """


def stabilized_rewards(values: Tensor, baseline_values: Tensor | None, use: BaselineUse) -> Tensor:
    """The rewards, or their gain over the empty trace, or `R' = max(0, R - R_baseline)` (arXiv 2602.11549).

    Args:
        values: `[N]` trace rewards R.
        baseline_values: `[N]` R of the empty trace; may be None where `use` is "none".
        use: "none" keeps R, "subtract" gives the gain, "clip" the gain where it is positive and 0 elsewhere.

    Returns:
        `[N]` in float32 or float64.

    Raises:
        InputError: if shapes differ, or the baseline is needed and missing.

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
            f"baseline={use!r} needs baseline_values: aggregate the answers after the empty trace and pass their "
            'rewards [N], or set baseline="none".'
        )
    check_same_shape(
        "baseline_values", baseline_values, "values", values, "Repeat the value of each prompt for its K rollouts."
    )
    gain = values - baseline_values
    return gain.clamp(min=0) if use == "clip" else gain
