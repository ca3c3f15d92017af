"""The weighted geometric mean of signals."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import Signal
from nrt_lightning.signals.combiner import SignalCombiner, check_signals
from nrt_lightning.signals.failures import OnError


@dataclass(frozen=True)
class GeometricMeanOfSignals(SignalCombiner):
    """`r = (prod_s s^w_s)^(1 / sum_s w_s)`: high only if all signals are high, and 0 if one is 0.

    Args:
        signals: by name, none of them negative. Each is logged as `train/signal_NAME`.
        weights: by name, 1 if not given. A signal of weight 0 is only logged.
        on_error: "leave_out" leaves rollouts for which a signal raises or is NaN out of their groups, logs their number
            as `train/signal_NAME_failed` and warns; "raise" stops.

    Raises:
        InputError: a signal can be negative, or a weight is negative or has no signal.

    Example:
        >>> from nrt_lightning.signals import ExactMatch, Format, Repetition
        >>> reward = GeometricMeanOfSignals({"match": ExactMatch(), "format": Format()}, weights={"match": 3.0})
        >>> reward.combine({"match": torch.tensor([0.5, 0.0]), "format": torch.tensor([0.5, 1.0])})
        tensor([0.5000, 0.0000])
        >>> GeometricMeanOfSignals({"repetition": Repetition()})
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: signals.repetition can be -1.0, and a geometric mean takes no negative \
numbers. Use WeightedSumOfSignals, or a signal of at least 0.
    """

    signals: dict[str, Signal]
    weights: dict[str, float] = field(default_factory=dict)
    on_error: OnError = "leave_out"

    def __post_init__(self) -> None:
        check_signals(self.signals, self.weights, self.on_error)
        for name, weight in self.weights.items():
            check_at_least(f"weights.{name}", weight, 0)
        if not any(self.weights.get(name, 1.0) for name in self.signals):
            raise InputError("weights are all 0. Give at least one signal a weight above 0.")
        for name, signal in self.signals.items():
            if signal.minimum < 0 and self.weights.get(name, 1.0):
                raise InputError(
                    f"signals.{name} can be {signal.minimum}, and a geometric mean takes no negative numbers. "
                    "Use WeightedSumOfSignals, or a signal of at least 0."
                )

    @property
    @override
    def minimum(self) -> float:
        return 0.0

    @override
    def combine(self, values: dict[str, Tensor], group_ids: Tensor | None = None) -> Tensor:
        weights = {name: self.weights.get(name, 1.0) for name in values}
        for name, value in values.items():
            negative = (value < 0) & value.isfinite()  # others are left out of their groups: log gives NaN
            if weights[name] and bool(negative.any()):
                raise InputError(
                    f"signals.{name} declares minimum={self.signals[name].minimum}, but its value is "
                    f"{float(value[negative].min()):.3g}. Correct its minimum, or use WeightedSumOfSignals."
                )
        logs = [weights[name] * value.log() for name, value in values.items() if weights[name]]  # log 0 is -inf
        return (torch.stack(logs).sum(dim=0) / sum(weights.values())).exp()
