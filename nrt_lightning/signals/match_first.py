"""Right answers where there are any, other signals elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional import group_statistics
from nrt_lightning.signals.base import Signal
from nrt_lightning.signals.combiner import SignalCombiner, check_signals
from nrt_lightning.signals.failures import OnError


@dataclass(frozen=True)
class MatchFirst(SignalCombiner):
    """The signal `match` in groups in which it is above 0 for some rollout, the sum of the other signals elsewhere.

    JEPO with reinforcement learning (arXiv 2503.19618): where an answer of the policy is right, its traces are compared
    by their answers; where none is, by the log-probability of the reference answer. Rewards are compared within their
    group only, so their scales may differ. Rollouts for which `match` failed are left out.

    Args:
        signals: by name. Each is logged as `train/signal_NAME`.
        match: name of the signal that comes first.
        on_error: as that of `WeightedSumOfSignals`.

    Raises:
        InputError: there is no signal of that name, or no other.

    Example:
        >>> from nrt_lightning.signals import ExactMatch, Format
        >>> reward = MatchFirst({"match": ExactMatch(), "format": Format()})
        >>> values = {"match": torch.tensor([1.0, 0.0, 0.0, 0.0]), "format": torch.tensor([0.0, 1.0, 0.0, 1.0])}
        >>> reward.combine(values, torch.tensor([0, 0, 1, 1]))
        tensor([1., 0., 0., 1.])
    """

    signals: dict[str, Signal]
    match: str = "match"
    on_error: OnError = "leave_out"

    def __post_init__(self) -> None:
        check_signals(self.signals, {}, self.on_error)
        if self.match not in self.signals:
            raise InputError(f"match: there is no signal {self.match!r}.{nearest(self.match, self.signals)}")
        if len(self.signals) < 2:
            raise InputError(f"signals has only {self.match!r}: name another signal for groups without a match.")

    @property
    @override
    def minimum(self) -> float:
        others = [signal.minimum for name, signal in self.signals.items() if name != self.match]
        return min(self.signals[self.match].minimum, sum(others))

    @property
    @override
    def needs_group(self) -> bool:
        return True

    @override
    def combine(self, values: dict[str, Tensor], group_ids: Tensor | None = None) -> Tensor:
        assert group_ids is not None, "pass the groups"
        match = values[self.match]
        matched = group_statistics((match > 0).to(match.dtype), group_ids).mean > 0  # [N]
        others = torch.stack([value for name, value in values.items() if name != self.match]).sum(dim=0)
        return torch.where(matched | match.isnan(), match, others)
