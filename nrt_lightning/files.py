"""Files that a kill leaves whole: a file has its old contents or its new ones, never a part of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)


@contextmanager
def replaced(path: Path, *, errors: str = "strict", newline: str | None = None) -> Iterator[TextIO]:
    """A text file in UTF-8 that takes the place of another one when the block ends without an error.

    Args:
        path: of the file; its folder is made if it is missing.
        errors: what to do with characters that UTF-8 lacks.
        newline: as of `open`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes" / "today.txt"
        >>> with replaced(path) as file:
        ...     _ = file.write("rain")
        >>> path.read_text()
        'rain'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("w", encoding="utf-8", errors=errors, newline=newline) as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)  # it is there only after an error


def set_aside(path: Path) -> None:
    """Rename a file of an earlier run, if there is one, and say so."""
    if not path.exists():
        return
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    log.warning("%s is of an earlier run, and is %s now.", path, aside.name)
