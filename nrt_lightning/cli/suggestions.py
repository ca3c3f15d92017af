"""Suggestions for misspelled names on the command line or in a config."""

from __future__ import annotations

import importlib
import inspect
import re

import nrt_lightning
from nrt_lightning.errors import nearest

LIVE = "tokenizer"  # an argument of Policy that is no option
OPTION = re.compile(r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted")
CLASS = re.compile(r"Expected a dot import path string: ([\w.]+)|module '[\w.]+' has no attribute '(\w+)'")
ARGUMENT = re.compile(
    r"[Uu]nrecognized arguments: --([\w.]+)|Key '([\w.]+)' is not expected|No action for key \"([\w.]+)\""
)
LIST = re.compile(
    r"Parser key \"(\w+)\":.*Expected a <class 'list'>.*NestedArg\(key='([\w.]+)', val='([\w.]+)'\)", re.DOTALL
)
OTHER_TYPE = re.compile(r"Expected a <class '(int|float|bool|str)'>")


def suggestion(message: str, keys: list[str]) -> str:
    """The last line for a parser's error message: the misspelled name and similar names; empty if there is none.

    Args:
        message: error message of the parser.
        keys: option names of the parser.

    >>> suggestion("given class_path 'nrt_lightning.WeightedSum':  Option 'weighing' is not accepted", [])
    "\\n\\n'weighing' is not an argument of nrt_lightning.WeightedSum. Did you mean 'weighting'?"
    >>> suggestion("Expected a dot import path string: ArithmeticMeen", [])
    "\\n\\n'ArithmeticMeen' is not a known class. Did you mean 'ArithmeticMean'?"
    """
    if is_list := LIST.search(message):
        part, key, value = is_list.groups()
        return f"\n\n{part}.{key} is a list. Add to it: --{part}.{key}+={value}"
    if found := list(OPTION.finditer(message)):
        path, option = found[-1].groups()
        name = option.split(".")[0]  # a misspelled name may be followed by its settings
        return f"\n\n{name!r} is not an argument of {path}.{nearest(name, arguments(path))}"
    if (found := list(CLASS.finditer(message))) and not OTHER_TYPE.search(message):
        name = matched(found[-1])
        return f"\n\n{name!r} is not a known class.{nearest(name.rpartition('.')[2], class_names())}"
    if found := list(ARGUMENT.finditer(message)):
        name = matched(found[-1])
        return f"\n\n{name!r} is not an option.{nearest(name, keys)}"
    return ""


def matched(found: re.Match[str]) -> str:
    """The group of the alternative that matched."""
    return next(group for group in found.groups() if group)


def arguments(class_path: str) -> list[str]:
    """Argument names of a class, given its import path."""
    module, _, name = class_path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        return [name for name in parameters if name not in ("self", LIVE)]
    except (ImportError, AttributeError, ValueError):
        return []


def class_names() -> list[str]:
    """Names of the public classes of this package."""
    return [name for name in nrt_lightning.__all__ if inspect.isclass(getattr(nrt_lightning, name))]
