"""Leaves out of a page that is passed on what does not belong there: absolute paths, with user names, and secrets."""

from __future__ import annotations

import math
import re
from pathlib import PurePath, PureWindowsPath
from typing import Any

PART = r"[^/\\\s'\"`:,;<>|\[\]{}()]+"
WITHIN = re.compile(rf"(?<![\w.:/\\~<])(?:(?:~|[A-Za-z]:)(?:[/\\]{PART})+|(?:/{PART}){{2,}}|/root\b)[/\\]?")
WHOLE = re.compile(r"(?:~|[A-Za-z]:)[/\\]\S.*|(?:/[^/]+){2,}/?|/root/?")
HOME = re.compile(r"(?:(?:/home|/Users|[A-Za-z]:[/\\]Users)[/\\][^/\\]+|/root)[/\\]?", re.IGNORECASE)
SECRET = re.compile(r"(?:^|[._-])(?:token|password|passwd|secret|api_?key|credentials?|authorization)$", re.IGNORECASE)


MOST, DEEPEST, LONGEST = 1000, 8, 2000  # entries, levels and characters of a setting


def private(value: Any, depth: int = 0) -> Any:
    """A setting without absolute paths, and without the values of secrets. What is too long is left out, and said so.

    >>> private({"data.train": "/home/ada/rows.csv", "hub.token": "hf_x", "max_trace_tokens": 32})
    {'data.train': '…/rows.csv', 'hub.token': '(left out)', 'max_trace_tokens': 32}
    """
    if isinstance(value, dict | list | tuple) and depth == DEEPEST:
        return "(too deep)"
    if isinstance(value, dict):
        kept = {
            str(name)[:LONGEST]: "(left out)" if entry and SECRET.search(str(name)) else private(entry, depth + 1)
            for name, entry in list(value.items())[:MOST]
        }
        return kept | ({"…": f"{len(value) - MOST:,} more left out"} if len(value) > MOST else {})
    if isinstance(value, list | tuple):
        more = [f"{len(value) - MOST:,} more left out"] if len(value) > MOST else []
        return [*(private(entry, depth + 1) for entry in value[:MOST]), *more]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return without_paths(short(value)) if isinstance(value, str) else value


def short(text: str) -> str:
    """The start of a text that is too long."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]} [... {more:,} characters left out]"


def without_paths(text: str) -> str:
    """A text in which absolute paths keep their last part only.

    >>> without_paths("no rows in /srv/ada/data/rows.csv."), without_paths("runs/mine"), without_paths("/home/ada")
    ('no rows in …/rows.csv.', 'runs/mine', '~')
    >>> without_paths("https://example.org/a/b"), without_paths("</think>")
    ('https://example.org/a/b', '</think>')
    >>> without_paths("C:/Users/Ada L/x.csv")
    '…/x.csv'
    """
    if WHOLE.fullmatch(text):
        return last_part(text)
    return WITHIN.sub(lambda found: last_part(found[0]), text)


def last_part(path: str) -> str:
    """The last part of a path; `~` for a home folder."""
    kind = PureWindowsPath if "\\" in path else PurePath
    return "~" if HOME.fullmatch(path) else f"…/{kind(path).name}"
