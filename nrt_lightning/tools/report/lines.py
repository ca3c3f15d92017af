"""JSON lines of runs that may have been killed in the middle of a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FORMAT = 1  # of the files that this version reads


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON lines file, and how many lines could not be read.

    Args:
        path: the file; a missing one has no lines.
    """
    rows: list[dict[str, Any]] = []
    unread = 0
    if not path.is_file():
        return rows, unread
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and row.get("format", FORMAT) == FORMAT:
                rows.append(row)
            else:
                unread += 1
    return rows, unread


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object in a file; None if there is none, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def number(value: Any) -> float | None:
    """A finite number; None for anything else.

    >>> number(2), number("2"), number(float("nan")), number(True)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        real = float(value)
    except OverflowError:
        return None
    return real if abs(real) < float("inf") else None


def text(value: Any) -> str:
    """A text; empty for anything else."""
    return value if isinstance(value, str) else ""
