"""A commented YAML with other values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

LINE = re.compile(r"(?P<indent> *)(?P<key>[\w+]+):(?P<value>[^#]*?)(?P<comment> # .*)?")
PLAIN = re.compile(r"[\w./-]+", re.ASCII)


@dataclass(frozen=True)
class Setting:
    """A value of a config."""

    value: Any
    comment: str = ""  # empty keeps the one that is there


def fill(text: str, settings: Mapping[str, Setting]) -> str:
    """A commented YAML with other values. Settings that are null there may become whole parts.

    Args:
        text: one key a line; what is deeper in a replaced setting is removed.
        settings: by the keys that lead to them, joined by dots.

    Example:
        >>> settings = {"a.b": Setting(2, "two"), "a.c": Setting("#")}
        >>> print(fill("a: # part\\n  b: 1 # one\\n  c: null # none\\n", settings))
        a: # part
          b: 2 # two
          c: "#" # none
        <BLANKLINE>
    """
    found, lines, removed = [], [], -1  # keys above a line with their indents; indent of a replaced setting
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        indent = len(line) - len(line.lstrip())
        if removed >= 0 and line.strip() and indent > removed:
            continue
        removed = -1
        if match is None or line.startswith("#"):
            lines.append(line)
            continue
        above = [*((deep, key) for deep, key in above if deep < indent), (indent, match["key"])]
        path = ".".join(key for _, key in above)
        if path in settings:
            found.append(path)
            removed = indent
            comment = one_line(settings[path].comment)
            comment = f" # {comment}" if comment else match["comment"] or ""
            line = f"{match['indent']}{match['key']}: {as_yaml(settings[path].value)}{comment}"
        lines.append(line)
    assert sorted(found) == sorted(settings), set(settings) - set(found)
    return "\n".join(lines) + "\n"


def as_yaml(value: Any) -> str:
    """A value on one line of YAML. Any text is read back as it is.

    >>> as_yaml("rows.csv"), as_yaml("no"), as_yaml({"a": [1, None]}), as_yaml(5e-5)
    ('rows.csv', '"no"', '{a: [1, null]}', '5.0e-5')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, float) and not isinstance(value, bool):
        text = repr(value)
        return re.sub(r"^(\d+)e", r"\1.0e", text).replace("e-0", "e-")  # YAML 1.1 reads 1e-4 as text
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and not value.startswith("-") and yaml.safe_load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=True)
    return json.dumps(value)


def one_line(text: str) -> str:
    """A text without line breaks and other characters that cannot be seen, for a comment."""
    return "".join(character if character.isprintable() else " " for character in text)
