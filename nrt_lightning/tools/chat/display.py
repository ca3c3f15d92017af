"""Traces and answers on a terminal or in a file, as they are written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TextIO

DIM, PLAIN = "\033[2m", "\033[0m"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Display:
    """Writes parts of a reply under labels, each as its tokens arrive.

    Args:
        out: stream to write to.
        color: dim the parts that are not the answer; None for true on a terminal without NO_COLOR.
    """

    def __init__(self, out: TextIO, *, color: bool | None = None) -> None:
        self.out = out
        self.color = (out.isatty() and "NO_COLOR" not in os.environ) if color is None else color
        self.shown = ""  # of the current part

    def begin(self, label: str, *, dim: bool = False) -> None:
        """Begin a part."""
        self.shown = ""
        self._write(f"{DIM if dim and self.color else ''}{label}: ")

    def grow(self, text: str) -> None:
        """Write what is new in the text of the current part."""
        text = text.lstrip()
        if text.startswith(self.shown):
            self._write(printable(text[len(self.shown) :]))
            self.shown = text

    def end(self, text: str) -> None:
        """End the current part with its whole text."""
        text = text.strip()
        if not text.startswith(self.shown.rstrip()):  # its tokens were decoded otherwise
            self._write("\n")
            self.shown = ""
        self.grow(text)
        self._write(f"{PLAIN if self.color else ''}\n")

    def note(self, text: str) -> None:
        """Write a remark on its own line."""
        self._write(f"{DIM if self.color else ''}note: {text}{PLAIN if self.color else ''}\n")

    def leave(self) -> None:
        """End in the middle of a part."""
        self._write(f"{PLAIN if self.color else ''}\n")

    def line(self, text: str = "") -> None:
        """Write a line."""
        self._write(f"{printable(text)}\n")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def printable(text: str) -> str:
    r"""Text whose control characters are shown and not obeyed.

    >>> printable("a\tb\n\x1b[2J")
    'a\tb\n\\x1b[2J'
    """
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class Growing:
    """The text of tokens that arrive one by one, as far as it is settled.

    Args:
        decode: from tokens to their text.
        stop: text that ends it, of which no beginning is given away; None if a token ends it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: str | None = None) -> None:
        self.decode, self.stop = decode, stop or ""
        self.tokens: list[int] = []

    def add(self, token: int) -> str:
        """Append a token; return the settled text.

        >>> growing = Growing(lambda tokens: "".join(map(chr, tokens)), stop="=>")
        >>> [growing.add(ord(character)) for character in "a = b =>"]
        ['a', 'a ', 'a ', 'a = ', 'a = b', 'a = b ', 'a = b ', 'a = b ']
        """
        self.tokens.append(token)
        text = self.decode(self.tokens)
        if self.stop and self.stop in text:
            return text.partition(self.stop)[0]
        held = next((n for n in range(len(self.stop) - 1, 0, -1) if text.endswith(self.stop[:n])), 0)
        return text[: len(text) - held].rstrip("\ufffd")  # a character whose other bytes follow
