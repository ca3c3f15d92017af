"""The base class of combinations of signals, and checks of their settings."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import partial
from typing import get_args

from torch import Tensor

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional import check_choice
from nrt_lightning.models.policy.texts import with_rows
from nrt_lightning.signals.base import RolloutEvidence, RolloutSignal, ScoreEvidence, ScoreSignal, Signal
from nrt_lightning.signals.failures import OnError, guarded

NAME = re.compile(r"[a-z][a-z0-9_]*")


class SignalCombiner(ABC):
    """Combines named signals to one reward for each rollout. Every signal is logged under its name.

    A rollout for which a signal raises an exception or is NaN is left out of its group, with a warning and a count;
    with `on_error` "raise" training stops instead.
    """

    signals: dict[str, Signal]
    on_error: OnError = "leave_out"

    @abstractmethod
    def combine(self, values: dict[str, Tensor], group_ids: Tensor | None = None) -> Tensor:
        """The rewards, `[N]`, of the signals' values by name, `[N]` each.

        Args:
            values: by name.
            group_ids: `[N]` integers, for combinations that compare the rollouts of a prompt.
        """

    @property
    def minimum(self) -> float:
        """The lowest possible reward."""
        return float("-inf")

    @property
    def needs_baseline(self) -> bool:
        """True if a signal requires the log-probs of the answers after the empty trace."""
        return any(signal.needs_baseline for signal in self.signals.values())

    @property
    def needs_answer_logprobs(self) -> bool:
        """True if some signal reads the log-probs of the reference answers."""
        return any(signal.needs_answer_logprobs for signal in self.signals.values())

    @property
    def needs_group(self) -> bool:
        """True if a signal compares the rollouts of a prompt."""
        return any(signal.needs_group for signal in self.signals.values())

    @property
    def needs_policy_answers(self) -> bool:
        """True if a signal reads answers that the policy writes."""
        return any(signal.needs_policy_answers for signal in self.signals.values())

    def measure(self, evidence: RolloutEvidence) -> dict[str, Tensor]:
        """The values of all `RolloutSignal`s by name, `[N]` each. Call it right after sampling."""
        rollouts, rows = evidence.rollouts, with_rows(evidence.prompts, evidence.policy).rows
        return {
            name: guarded(
                name,
                partial(signal.measure, evidence),
                rollouts.truncated,
                lambda n: repr(rows[int(rollouts.group_ids[n])].id),
                self.on_error,
            )
            for name, signal in self.signals.items()
            if isinstance(signal, RolloutSignal)
        }

    def values(self, evidence: ScoreEvidence) -> dict[str, Tensor]:
        """The values of all signals by name, `[N]` each, with those that `measure` returned.

        Raises:
            InputError: a `RolloutSignal` has not been measured.
        """
        rollouts = evidence.rollouts
        found = dict(rollouts.signal_values)
        for name, signal in self.signals.items():
            if isinstance(signal, ScoreSignal):
                found[name] = guarded(
                    name,
                    partial(signal, evidence),
                    rollouts.truncated,
                    lambda n: f"{int(rollouts.group_ids[n])} of the batch",
                    self.on_error,
                )
            elif name not in found:
                raise InputError(
                    f"The signal {name!r} has not been measured. Use the OnPolicyRollout callback, or store what "
                    "`signals.measure` returns in `rollouts.signal_values` right after sampling."
                )
        return {name: found[name] for name in self.signals}


def check_signals(signals: dict[str, Signal], weights: dict[str, float], on_error: str) -> None:
    """Check the settings of a combination.

    Raises:
        InputError: there is no signal, a name cannot be logged, a weight has no signal, or `on_error` is unknown.
    """
    check_choice("on_error", on_error, get_args(OnError))
    if not signals:
        raise InputError("signals is empty: name at least one, or set signals to null for the aggregator alone.")
    for name, signal in signals.items():
        if not NAME.fullmatch(name):
            raise InputError(f"signals: the name {name!r} cannot be logged. Use lower-case letters, digits and _.")
        if not isinstance(signal, ScoreSignal | RolloutSignal):
            raise InputError(
                f"signals.{name} is a {type(signal).__name__}: make it a ScoreSignal, RolloutSignal or TextSignal."
            )
    for name in weights:
        if name not in signals:
            raise InputError(f"weights: there is no signal {name!r}.{nearest(name, signals)}")
