"""Files of JSON lines in the folder of a run's log: bounded, and exact after a resume."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
Line = dict[str, Any]


class RunLines:
    """One JSON object a line. Lines are added at the end; a rewrite replaces the file at once.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, lines: Iterable[Line]) -> None:
        """Add lines, on the disk when this returns. Numbers that JSON lacks become null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(plain(line), ensure_ascii=False) + "\n" for line in lines)

    def read(self) -> list[Line]:
        """All lines but those that a kill has cut."""
        return read_lines(self.path)[0]

    def replace(self, lines: Iterable[Line]) -> None:
        """Replace all lines."""
        beside = self.path.with_name(f"{self.path.name}.part")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        os.replace(beside, self.path)

    def go_back(self, wanted: Callable[[Line], bool], before: str | None) -> list[Line]:
        """Keep the wanted lines only, and return them.

        Args:
            wanted: True for lines from before the checkpoint.
            before: the file that the run wrote to before; its lines are taken where this is another one.
        """
        source = self.path
        if before and Path(before).exists() and not (self.path.exists() and os.path.samefile(before, self.path)):
            if self.path.exists():
                self.set_aside()
            source = Path(before)
        lines = [line for line in read_lines(source)[0] if wanted(line)] if source.exists() else []
        if source.exists():
            self.replace(lines)
        return lines

    def set_aside(self) -> None:
        """Rename the file of an earlier run."""
        if self.path.exists():
            names = (self.path.with_name(f"{self.path.stem}-{n}{self.path.suffix}") for n in count(1))
            aside = next(name for name in names if not name.exists())
            self.path.rename(aside)
            log.warning("%s is of an earlier run, and is %s now.", self.path, aside.name)


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The objects in a file of JSON lines, and the number of lines that are none."""
    lines, damaged = [], 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if isinstance(line, dict):
                lines.append(line)
            else:
                damaged += bool(text.strip())
    return lines, damaged


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinity become null.

    >>> plain({"x": [float("nan"), 1.0], "y": float("inf")})
    {'x': [None, 1.0], 'y': None}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def log_folder(trainer: Any) -> Path:
    """Where a run's log lies: a logger's directory in the run's folder, else that folder.

    Unlike `Trainer.log_dir` it sends nothing between processes, and is right on rank zero only.
    """
    root = Path(trainer.default_root_dir)
    for logger in trainer.loggers:
        directory = getattr(logger, "log_dir", None)
        if directory and "://" not in str(directory):
            if Path(os.path.abspath(directory)).is_relative_to(os.path.abspath(root)):
                return Path(directory)
            break
    return root


def thinned(lines: list[Line], steps: int) -> list[Line]:
    """Lines of at most about `steps` steps, evenly over the run, with those of the first and the last step.

    Lines that have been thinned before are no thinner than the others after it, whatever was added.

    >>> [line["step"] for line in thinned([{"step": n} for n in (0, 4, 8, 9, 10, 11, 12)], 3)]
    [0, 4, 8, 12]
    """
    if not lines:
        return lines
    first, last = lines[0]["step"], lines[-1]["step"]
    kept: dict[int, int] = {}  # the first step in each part of the run
    for line in lines:
        kept.setdefault((line["step"] - first) * steps // max(last - first, 1), line["step"])
    wanted = {*kept.values(), last}
    return [line for line in lines if line["step"] in wanted]
