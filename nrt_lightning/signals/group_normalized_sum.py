"""The sum of signals that are normalized one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional import check_at_least, group_normalize
from nrt_lightning.signals.base import Signal
from nrt_lightning.signals.combiner import SignalCombiner, check_signals
from nrt_lightning.signals.failures import OnError


@dataclass(frozen=True)
class GroupNormalizedSum(SignalCombiner):
    """`r = sum_s w_s (s - mean(s)) / (std(s) + eps)`, each signal normalized in its group before they are summed: GDPO.

    Rewards that are summed first and normalized then have few different values, and a signal with large differences
    hides the others (arXiv 2601.05242, which normalizes the sum over the batch: `BatchNormalized(center="batch")`). A
    rollout for which a signal is not finite is left out.

    Args:
        signals: by name. Each is logged as `train/signal_NAME`.
        weights: by name, 1 if not given. A signal of weight 0 is only logged.
        eps: added to the standard deviations.
        on_error: as that of `WeightedSumOfSignals`.

    Raises:
        InputError: a weight has no signal, a name cannot be logged, or `eps` is negative.

    Example:
        >>> from nrt_lightning.signals import Format, Repetition
        >>> reward = GroupNormalizedSum({"format": Format(), "repetition": Repetition()})
        >>> values = {"format": torch.tensor([1.0, 0.0]), "repetition": torch.tensor([-1.0, 0.0])}
        >>> reward.combine(values, torch.tensor([0, 0]))
        tensor([0., 0.])
    """

    signals: dict[str, Signal]
    weights: dict[str, float] = field(default_factory=dict)
    eps: float = 0.0
    on_error: OnError = "leave_out"

    def __post_init__(self) -> None:
        check_signals(self.signals, self.weights, self.on_error)
        check_at_least("eps", self.eps, 0)

    @property
    @override
    def needs_group(self) -> bool:
        return True

    @override
    def combine(self, values: dict[str, Tensor], group_ids: Tensor | None = None) -> Tensor:
        assert group_ids is not None, "pass the groups"
        weighted = {name: self.weights.get(name, 1.0) for name in values}
        counted = {name: value for name, value in values.items() if weighted[name]}
        known = torch.ones_like(group_ids, dtype=torch.bool)  # [N]
        for value in counted.values():
            known = known & value.isfinite()
        total = torch.zeros_like(next(iter(values.values())))
        for name, value in counted.items():
            total = total + weighted[name] * group_normalize(value, group_ids, known, eps=self.eps)
        return total.where(known, torch.nan)
