"""Exact match of the policy's answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.signals.base import RolloutText, TextSignal


@dataclass(frozen=True)
class ExactMatch(TextSignal):
    """1 if the policy's answer ended by itself and equals the reference answer up to surrounding whitespace, else 0.

    The policy writes an answer after every trace, sampled at `sampling.answer_temperature` (0 is greedy).

    Args:
        forced: count answers after a forced marker too.

    Example:
        >>> from nrt_lightning.structures import Row
        >>> row = Row("1", [{"role": "user", "content": "1 + 1 = ?"}], "2")
        >>> ExactMatch().read(RolloutText("1 + 1 = ?", "2", "1 + 1", True, " 2", True, row))
        1.0
    """

    forced: bool = field(default=False, kw_only=True)
    minimum = 0.0

    @override
    def read(self, text: RolloutText) -> float:
        whole = text.policy_answer_ended and (text.marker_emitted or self.forced)
        return float(whole and text.policy_answer.strip() == text.answer.strip())
