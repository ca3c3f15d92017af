"""The weighted sum of signals."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.signals.base import Signal
from nrt_lightning.signals.combiner import SignalCombiner, check_signals
from nrt_lightning.signals.failures import OnError


@dataclass(frozen=True)
class WeightedSumOfSignals(SignalCombiner):
    """`r = sum_s w_s s`.

    Args:
        signals: by name. Each is logged as `train/signal_NAME`.
        weights: by name, 1 if not given. A signal of weight 0 is only logged.
        on_error: "leave_out" leaves rollouts for which a signal raises or is NaN out of their groups, logs their number
            as `train/signal_NAME_failed` and warns; "raise" stops.

    Raises:
        InputError: a weight has no signal, or a name cannot be logged.

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
    on_error: OnError = "leave_out"

    def __post_init__(self) -> None:
        check_signals(self.signals, self.weights, self.on_error)

    @property
    @override
    def minimum(self) -> float:
        weights = {name: self.weights.get(name, 1.0) for name in self.signals}
        if any(weight < 0 for weight in weights.values()):
            return float("-inf")
        return sum(weight * self.signals[name].minimum for name, weight in weights.items() if weight)

    @override
    def combine(self, values: dict[str, Tensor], group_ids: Tensor | None = None) -> Tensor:
        weighted = [(self.weights.get(name, 1.0), value) for name, value in values.items()]
        # Without its value where the weight is 0: 0 * -inf would be NaN.
        terms = [w * value if w else torch.zeros_like(value) for w, value in weighted]
        return torch.stack(terms).sum(dim=0)
