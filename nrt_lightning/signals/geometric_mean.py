"""Several signals as a weighted geometric mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import Signal
from nrt_lightning.signals.combiner import SignalCombiner, check_signals


@dataclass(frozen=True)
class GeometricMeanOfSignals(SignalCombiner):
    """`r = (prod_s s^w_s)^(1 / sum_s w_s)`: high only where every signal is, and 0 where one is.

    Args:
        signals: by name, none of which may be negative; each is logged as `train/signal_NAME`.
        weights: by name; 1 where none is given, 0 to log a signal and not to train on it.

    Raises:
        InputError: a signal that can be negative, a negative weight or a weight of no signal, before training.

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

    def __post_init__(self) -> None:
        check_signals(self.signals, self.weights)
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

    def combine(self, values: dict[str, Tensor]) -> Tensor:
        """See `SignalCombiner.combine`."""
        weights = {name: self.weights.get(name, 1.0) for name in values}
        for name, value in values.items():
            if weights[name] and bool((value < 0).any()):
                raise InputError(f"signals.{name} says it is never negative, but it was {float(value.min()):.3g}.")
        logs = [weights[name] * value.log() for name, value in values.items() if weights[name]]  # log 0 is -inf
        return (torch.stack(logs).sum(dim=0) / sum(weights.values())).exp()
