"""Errors that name the culprit and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input cannot be used; the message says what, where and how to mend it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The names closest to a misspelled one, as the end of an error message.

    >>> nearest("qestion", ["question", "answer"])
    " Did you mean 'question'?"
    >>> nearest("qestion", ["x"])
    " Known: 'x'."
    """
    known = sorted(known)
    if not known:
        return ""
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return " Did you mean " + " or ".join(map(repr, close)) + "?"
    return " Known: " + ", ".join(map(repr, known)) + "."
