"""Equality of the last numbers of two answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from typing_extensions import override

from nrt_lightning.signals.answer_match import AnswerMatch

NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")
BETWEEN_DIGITS = re.compile(r"(?<=\d),(?=\d)")


@dataclass(frozen=True)
class NumericMatch(AnswerMatch):
    """1 if the last number of the policy's answer equals the last number of the reference answer, else 0.

    Answers of GSM8K (arXiv 2110.14168) are scored so: commas inside of numbers and dollar signs are removed, and a
    reference answer may hold its solution before `#### 18`. 18 and 18.0 are equal. A minus sign between two numbers,
    as in 20-2, is no part of the second.

    Args:
        forced: count answers after a forced marker too.

    Example:
        >>> metric = NumericMatch()
        >>> metric.answer_key("She pays $1,250.00."), metric.answer_key("5 * 250 = 1250\\n#### 1250")
        ('1250', '1250')
        >>> metric.answer_key("-0.50"), metric.answer_key("20-2"), metric.answer_key("none") is None
        ('-0.5', '2', True)
    """

    wanted = "a number"

    @override
    def answer_key(self, answer: str) -> str | None:
        text = BETWEEN_DIGITS.sub("", answer).replace("$", "")
        found = [match[0] if free(text, match.start()) else match[0].lstrip("-") for match in NUMBER.finditer(text)]
        return plain(Decimal(found[-1])) if found else None


def free(text: str, start: int) -> bool:
    """True if a minus sign at this place does not follow a number or a word, so that it is a sign of the number."""
    return start == 0 or not text[start - 1].isalnum()


def plain(number: Decimal) -> str:
    """A number in one form, without zeros at the end.

    >>> plain(Decimal("1200.0")), plain(Decimal("-0")), plain(Decimal(".50"))
    ('1200', '0', '0.5')
    """
    whole = number.to_integral_value()
    return str(int(whole)) if number == whole else format(number, "f").rstrip("0")
