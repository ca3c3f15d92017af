"""Several signals as a weighted sum."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.signals.base import Signal
from nrt_lightning.signals.combiner import SignalCombiner, check_signals


@dataclass(frozen=True)
class WeightedSumOfSignals(SignalCombiner):
    """`r = sum_s w_s s`.

    Args:
        signals: by name; each is logged as `train/signal_NAME`.
        weights: by name; 1 where none is given, 0 to log a signal and not to train on it.

    Raises:
        InputError: a weight of no signal, or a name that cannot be logged.

    Example:
        >>> from nrt_lightning.signals import Format, Repetition
        >>> reward = WeightedSumOfSignals({"format": Format(), "repetition": Repetition()}, weights={"format": 0.1})
        >>> reward.combine({"format": torch.tensor([1.0, 1.0]), "repetition": torch.tensor([0.0, -1.0])})
        tensor([ 0.1000, -0.9000])
        >>> WeightedSumOfSignals({"format": Format()}, weights={"fromat": 0.1})
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: weights: there is no signal 'fromat'. Did you mean 'format'?
    """

    signals: dict[str, Signal]
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_signals(self.signals, self.weights)

    def combine(self, values: dict[str, Tensor]) -> Tensor:
        """See `SignalCombiner.combine`."""
        weighted = [(self.weights.get(name, 1.0), value) for name, value in values.items()]
        # A weight of 0 leaves a signal out: 0 * -inf would be NaN.
        terms = [w * value if w else torch.zeros_like(value) for w, value in weighted]
        return torch.stack(terms).sum(dim=0)
