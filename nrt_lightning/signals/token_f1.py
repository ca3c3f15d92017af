"""Overlap of the words of two answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.signals.base import RolloutText, TextSignal

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class TokenF1(TextSignal):
    """F1 of the words of the policy's answer and of the reference answer, as SQuAD (arXiv 1606.05250) computes it.

    Both are put into lower case; punctuation, the articles a, an, the and repeated white space are removed.

    Args:
        forced: count answers after a forced marker too.

    Example:
        >>> from nrt_lightning.structures import Row
        >>> row = Row("1", [{"role": "user", "content": "Where?"}], "the Eiffel Tower")
        >>> TokenF1().read(RolloutText("Where?", "the Eiffel Tower", "", True, "Eiffel tower, Paris", True, row))
        0.8
    """

    forced: bool = field(default=False, kw_only=True)
    minimum = 0.0

    @override
    def answer_key(self, answer: str) -> str | None:
        return " ".join(words_of(answer))

    @override
    def read(self, text: RolloutText) -> float:
        if not (text.marker_emitted or self.forced):
            return 0.0
        return f1(words_of(text.policy_answer), words_of(text.answer))


def words_of(text: str) -> list[str]:
    """The words of a text after SQuAD's normalization.

    >>> words_of("The  U.S. president")
    ['us', 'president']
    """
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def f1(found: list[str], wanted: list[str]) -> float:
    """F1 of two bags of words. If one is empty: 1 if both are, else 0.

    >>> f1(["a", "b"], ["b", "b"]), f1([], []), f1([], ["b"])
    (0.5, 1.0, 0.0)
    """
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))
