"""Which parts of the method can work together; asked before any weights are read."""

from __future__ import annotations

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.errors import InputError
from nrt_lightning.losses import NRTLoss
from nrt_lightning.models import Reference
from nrt_lightning.rewards import LogProb, RewardAggregator
from nrt_lightning.signals import SignalCombiner
from nrt_lightning.structures import Sampling


def check_parts(
    aggregator: RewardAggregator,
    advantage: AdvantageEstimator,
    loss: NRTLoss,
    reference: Reference,
    sampling: Sampling,
    signals: SignalCombiner | None = None,
    train_response: bool = False,
) -> None:
    """Refuse parts that cannot work together.

    Raises:
        InputError: naming both, and the mend.
    """
    if advantage.needs_group and sampling.group_size < 2:
        raise InputError(
            f"sampling.group_size is {sampling.group_size}, but {advantage} compares the traces of a group: "
            "every advantage would be 0. Set group_size to 2 or more."
        )
    if loss.kl_coef and not reference.available:
        raise InputError(
            f"loss.kl_coef is {loss.kl_coef}, but there is no reference. Set reference to FrozenReference."
        )
    if advantage.needs_logprobs and signals is None and not isinstance(aggregator, LogProb):
        raise InputError(f"{advantage} needs log-probs for rewards, not {aggregator}. Set aggregator to LogProb.")
    if signals is not None:
        check_signals_fit(advantage, signals, sampling)
    own = sampling.answer_temperature
    if train_response and own not in (None, sampling.temperature):
        raise InputError(
            f"sampling.answer_temperature is {own} and sampling.temperature {sampling.temperature}, but train_response "
            "trains both as one sample of the policy. Set answer_temperature to null."
        )


def check_signals_fit(advantage: AdvantageEstimator, signals: SignalCombiner, sampling: Sampling) -> None:
    """Refuse signals that the advantage or the sampling cannot serve."""
    if advantage.needs_baseline:
        raise InputError(
            f"{advantage} compares the reward with that of the empty trace, which has no signals. Set its baseline to "
            "none, and take the confidence as the signal GainOverBaseline, with clip: true for a clipped one."
        )
    if signals.needs_group and sampling.group_size < 2:
        names = [name for name, signal in signals.signals.items() if signal.needs_group]
        raise InputError(
            f"sampling.group_size is {sampling.group_size}, but signals.{names[0]} compares the traces of a group. "
            "Set group_size to 2 or more."
        )
