"""Files of JSON lines in the folder of a run's log: bounded, and exact after a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nrt_lightning.files import replaced, set_aside
from nrt_lightning.strategies.checkpoints import remote
from nrt_lightning.tools.report.lines import read_lines

Line = dict[str, Any]
Place = dict[str, str]  # of a file, in a checkpoint


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
        with replaced(self.path) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def go_back(self, wanted: Callable[[Line], bool], before: Path | None) -> list[Line]:
        """Keep the wanted lines only, and return them.

        Args:
            wanted: True for lines from before the checkpoint.
            before: the file that the run wrote to before; its lines are taken where this is another one.
        """
        source = self.path
        if before and before.exists() and not (self.path.exists() and os.path.samefile(before, self.path)):
            set_aside(self.path)
            source = before
        lines = [line for line in read_lines(source)[0] if wanted(line)]
        if source.exists():
            self.replace(lines)
        return lines


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


def place_of(path: Path, trainer: Any) -> Place:
    """A file of a run for its checkpoints, with the run's folder, which may move."""
    return {"path": os.path.realpath(path), "folder": os.path.realpath(trainer.default_root_dir)}


def written_before(place: Place | None, trainer: Any) -> Path | None:
    """The file of `place_of` for a run that is resumed.

    It lies around the checkpoint as it did when that was saved. In a folder that was renamed or copied it is the one of
    this folder, because another run may have the old name. The path of before counts for a checkpoint elsewhere.

    Args:
        place: in the checkpoint; None if there was no file.
        trainer: that resumes, with `ckpt_path`.
    """
    if not isinstance(place, dict):  # none, or of an earlier version
        return None
    path, folder = Path(place["path"]), Path(place["folder"])
    if not trainer.ckpt_path or remote(trainer.ckpt_path) or not path.is_relative_to(folder):
        return path
    around = Path(os.path.realpath(trainer.ckpt_path)).parents
    if near := next((own for parent in around if (own := parent / path.relative_to(folder)).exists()), None):
        return near
    moved = folder not in around and Path(os.path.realpath(trainer.default_root_dir)) in around
    return None if moved else path


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
