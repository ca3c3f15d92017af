"""JSON lines of runs that may have been killed in the middle of a line."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

FORMAT = 1  # of the files that this version reads
LONGEST_LINE = 4_000_000  # characters; those of runs are far below
LARGEST_NUMBER = 1e100  # its square is a number, too
LAST_STEP = 2**53  # up to which every integer is a number in a page


def hindrance(path: Path) -> str:
    """Why a file cannot be read; empty for a file that can be read, and for a missing one."""
    if not os.path.lexists(path):
        return ""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            return "is not a file"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def readable(path: Path) -> bool:
    """True for a file that can be read."""
    return os.path.lexists(path) and not hindrance(path)


def bounded_lines(file: TextIO) -> Iterator[str | None]:
    """The lines of a file; None for one that is too long."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE:
            yield line
            continue
        while len(line) == LONGEST_LINE and not line.endswith("\n"):
            line = file.readline(LONGEST_LINE)
        yield None


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON lines file, and how many lines could not be read.

    Args:
        path: the file; one that is missing, or cannot be read, has no lines.
    """
    rows: list[dict[str, Any]] = []
    unread = 0
    if not readable(path):
        return rows, unread
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in bounded_lines(file):
            if line is not None and not line.strip():
                continue
            try:
                row = json.loads(line or "")
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and row.get("format", FORMAT) == FORMAT:
                rows.append(row)
            else:
                unread += 1
    return rows, unread


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object in a file; None if there is none, or it is damaged."""
    if not readable(path) or path.stat().st_size > LONGEST_LINE:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def number(value: Any) -> float | None:
    """A number whose square is finite, too; None for anything else.

    >>> number(2), number("2"), number(float("nan")), number(True)
    (2.0, None, None, None)
    >>> number(1e308), number(10**400)
    (None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        real = float(value)
    except OverflowError:
        return None
    return real if abs(real) <= LARGEST_NUMBER else None


def step_number(value: Any) -> int | None:
    """A number of steps; None for anything else."""
    real = number(value)
    return int(real) if real is not None and abs(real) < LAST_STEP else None


def text(value: Any) -> str:
    """A text; empty for anything else."""
    return value if isinstance(value, str) else ""


def without_middle(text: str, longest: int) -> str:
    """A text without its middle if it is longer than so many characters. What is left out is said in it.

    >>> without_middle("abcdefghij", 4)
    'ab [... 6 characters left out ...] ij'
    """
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} [... {len(text) - longest:,} characters left out ...] {text[-longest // 2 :]}"
