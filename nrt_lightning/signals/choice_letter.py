"""Equality of the letters that two answers choose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.signals.answer_match import AnswerMatch

ALONE = re.compile(r"[\s(\[*]*([A-Za-z])[\s)\]*.:]*")
LEADING = re.compile(r"[\s*]*([A-Z])\s*[).:,*]")
NAMED = re.compile(r"\b(?:answer|choice|option)\s*(?:is|:)?\s*[(\[*]*([A-Z])\b(?![\w'])", re.IGNORECASE)
BRACKETED = re.compile(r"[(\[]([A-Z])[)\]]")


@dataclass(frozen=True)
class ChoiceLetter(AnswerMatch):
    """1 if the policy's answer chooses the letter of the reference answer, else 0.

    The letter stands alone (`B`, `(b)`, `B.`), or before the text of its choice (`B) Paris`), or is the last one that
    is named (`the answer is B`) or stands in brackets. Other answers choose none and count as wrong.

    Args:
        forced: count answers after a forced marker too.

    Example:
        >>> [ChoiceLetter().answer_key(text) for text in ("b", "(C) 12 m", "So the answer is D.", "A man walks")]
        ['B', 'C', 'D', None]
    """

    wanted = "the letter of a choice"

    @override
    def answer_key(self, answer: str) -> str | None:
        if (match := ALONE.fullmatch(answer) or LEADING.match(answer)) is not None:
            return match[1].upper()
        for pattern in (NAMED, BRACKETED):
            if (letters := pattern.findall(answer)) and letters[-1].isupper():
                return letters[-1]
        return None
