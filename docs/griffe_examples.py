"""Doctests of docstrings as code: griffe knows the section `Examples`, and takes bare `>>>` for text."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^Example:$", re.MULTILINE)
BARE = re.compile(r"(?:\A|(?<=\n\n))(>>> .*?)(?=\n\n|\Z)", re.DOTALL)


class Examples(griffe.Extension):
    """Puts doctests into the section `Examples`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is None:
            return
        text = SECTION.sub("Examples:", obj.docstring.value)
        obj.docstring.value = BARE.sub(lambda found: "Examples:\n    " + found[1].replace("\n", "\n    "), text)
