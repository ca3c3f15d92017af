"""The score of a reasoning-gym task."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.signals.base import RolloutText, TextSignal
from nrt_lightning.tasks.gym_source import ReasoningGymRow


@dataclass(frozen=True)
class ReasoningGymScore(TextSignal):
    """The score, from 0 to 1, that a task of reasoning-gym gives the policy's answer, for rows of `ReasoningGymSource`.

    As a signal it rewards answers, and in `metrics` of a module its mean is logged in evaluation. Many tasks accept
    several answers, and some give a fraction for a part. An answer that did not end by itself has 0.

    Args:
        forced: count answers after a forced marker too.

    Raises:
        InputError: a row is of another source.

    Example:
        >>> ReasoningGymScore().minimum
        0.0
    """

    forced: bool = field(default=False, kw_only=True)
    minimum = 0.0

    @override
    def read(self, text: RolloutText) -> float:
        if not isinstance(text.row, ReasoningGymRow):
            raise InputError(
                f"ReasoningGymScore: {text.row.origin or repr(text.row.id)} is no row of ReasoningGymSource. "
                "Use it with rows of this source only, or use ExactMatch."
            )
        whole = text.policy_answer_ended and (text.marker_emitted or self.forced)
        return text.row.score(text.policy_answer) if whole else 0.0
