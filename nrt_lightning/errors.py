"""The error for unusable input, and suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A setting or an input cannot be used. The message names it, its value and the fix."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest known names for a misspelled one, as the end of an error message.

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
