"""The files of figures that a run leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from nrt_lightning.errors import InputError

Curve = list[tuple[int, float]]  # step and value


def read_figures(path: Path, name: str) -> dict[str, float]:
    """The test figures of the run `name`.

    Raises:
        InputError: the file is damaged.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))[name]
        if not isinstance(figures, dict) or any(type(value) not in (int, float) for value in figures.values()):
            raise ValueError("no figures by name")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}). Remove {path.parent} to run {name} again."
        ) from error
    return figures


def read_curves(path: Path) -> dict[str, Curve]:
    """The columns of a CSVLogger's file, without empty cells.

    Raises:
        InputError: names a line that is damaged.
    """
    curves: dict[str, Curve] = {}
    if not path.exists():
        return curves
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        for record in reader:
            try:
                for name, value in record.items():
                    if value and name not in ("step", "epoch"):
                        curves.setdefault(name, []).append((int(record["step"]), float(value)))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path}:{reader.line_num} is damaged ({error}). Remove {path.parent} to run it again."
                ) from error
    return curves
