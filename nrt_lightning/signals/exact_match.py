"""Exact match of the policy's answer."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.signals.answer_match import AnswerMatch


@dataclass(frozen=True)
class ExactMatch(AnswerMatch):
    """1 if the policy's answer ended by itself and equals the reference answer up to surrounding whitespace, else 0.

    The policy writes an answer after every trace, sampled at `sampling.answer_temperature` (0 is greedy).

    Args:
        forced: count answers after a forced marker too.

    Example:
        >>> from nrt_lightning.signals import RolloutText
        >>> from nrt_lightning.structures import Row
        >>> row = Row("1", [{"role": "user", "content": "1 + 1 = ?"}], "2")
        >>> ExactMatch().read(RolloutText("1 + 1 = ?", "2", "1 + 1", True, " 2", True, row))
        1.0
    """

    wanted = "a text"

    @override
    def answer_key(self, answer: str) -> str | None:
        return answer.strip()
