"""Whether the policy's own answer is the reference answer."""

from __future__ import annotations

from dataclasses import dataclass

from nrt_lightning.signals.base import RolloutText, TextSignal


@dataclass(frozen=True)
class ExactMatch(TextSignal):
    """1 if the policy's own answer is the reference answer but for space around it, else 0.

    After every trace the policy writes an answer of its own, by `sampling.answer_temperature` (0 is greedy).

    Args:
        forced: count answers after a marker that had to be forced too.

    Example:
        >>> from nrt_lightning.structures import Row
        >>> row = Row("1", [{"role": "user", "content": "1 + 1 = ?"}], "2")
        >>> ExactMatch().read(RolloutText("1 + 1 = ?", "2", "1 + 1", True, " 2", True, row))
        1.0
    """

    forced: bool = False
    minimum = 0.0

    def read(self, text: RolloutText) -> float:
        """See `TextSignal.read`."""
        return float((text.marker_emitted or self.forced) and text.own_answer.strip() == text.answer.strip())
