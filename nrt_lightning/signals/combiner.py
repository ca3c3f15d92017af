"""What every combination of signals shares."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional import check_same_shape
from nrt_lightning.signals.base import RolloutEvidence, RolloutSignal, ScoreEvidence, ScoreSignal, Signal

NAME = re.compile(r"[a-z][a-z0-9_]*")


class SignalCombiner(ABC):
    """Makes one reward a rollout out of several named signals, each of which is logged on its own."""

    signals: dict[str, Signal]

    @abstractmethod
    def combine(self, values: dict[str, Tensor]) -> Tensor:
        """One reward a rollout, `[N]`, from the signals by name, `[N]` each."""

    @property
    def needs_baseline(self) -> bool:
        """Whether some signal needs the answers scored after the empty trace."""
        return any(signal.needs_baseline for signal in self.signals.values())

    @property
    def needs_answer_logprobs(self) -> bool:
        """True if some signal reads the log-probs of the reference answers."""
        return any(signal.needs_answer_logprobs for signal in self.signals.values())

    @property
    def needs_group(self) -> bool:
        """Whether some signal compares the rollouts of a prompt."""
        return any(signal.needs_group for signal in self.signals.values())

    @property
    def needs_policy_answers(self) -> bool:
        """Whether some signal reads an answer that the policy wrote itself."""
        return any(signal.needs_policy_answers for signal in self.signals.values())

    def measure(self, evidence: RolloutEvidence) -> dict[str, Tensor]:
        """The signals that are measured when the traces have just been written, `[N]` each."""
        found = {name: s.measure(evidence) for name, s in self.signals.items() if isinstance(s, RolloutSignal)}
        return {name: checked(name, value, evidence.rollouts.truncated) for name, value in found.items()}

    def values(self, evidence: ScoreEvidence) -> dict[str, Tensor]:
        """Every signal by name, `[N]` each, those that were measured before included."""
        found = dict(evidence.rollouts.signal_values)
        for name, signal in self.signals.items():
            if isinstance(signal, ScoreSignal):
                found[name] = checked(name, signal(evidence), evidence.rollouts.truncated)
        missing = [name for name in self.signals if name not in found]
        if missing:
            raise InputError(
                f"The signal {missing[0]!r} was not measured when the traces were written. The OnPolicyRollout "
                "callback does it; without it, keep what `signals.measure` gives in `rollouts.signal_values`."
            )
        return {name: found[name] for name in self.signals}


def checked(name: str, value: Tensor, like: Tensor) -> Tensor:
    """A signal's values, in at least float32, if there is one for each rollout."""
    check_same_shape(f"signal {name}", value, "the rollouts", like, "One value for each rollout.")
    return value.float() if value.dtype in (torch.bool, torch.float16, torch.bfloat16) else value


def check_signals(signals: dict[str, Signal], weights: dict[str, float]) -> None:
    """Refuse a combination that has no signals, names that cannot be logged, and weights of signals it lacks.

    Raises:
        InputError: naming the culprit.
    """
    if not signals:
        raise InputError("signals is empty: name at least one, or set signals to null for the aggregator alone.")
    for name, signal in signals.items():
        if not NAME.fullmatch(name):
            raise InputError(f"signals: the name {name!r} cannot be logged. Use lower-case letters, digits and _.")
        if not isinstance(signal, ScoreSignal | RolloutSignal):
            raise InputError(
                f"signals.{name} is a {type(signal).__name__}: make it a ScoreSignal, RolloutSignal or TextSignal."
            )
    check_names("weights", weights, signals)


def check_names(field: str, names: Iterable[str], signals: dict[str, Signal]) -> None:
    """Refuse names that are no signal's."""
    for name in names:
        if name not in signals:
            raise InputError(f"{field}: there is no signal {name!r}.{nearest(name, signals)}")
