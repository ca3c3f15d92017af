"""Results of a run: test figures, and figures from the end of its curves."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from nrt_lightning.tools.comparison.experiment import Run, short

Curve = list[tuple[int, float]]  # step and value

ENTROPY = "rollout/trace_entropy"
LAST_FRACTION = 0.1  # of the points of a curve


@dataclass
class Outcome:
    """Results of a finished run."""

    method: str
    base: str
    seed: int
    figures: dict[str, float]  # of the test, with `seconds`, `collapse` and `trace_entropy` if known
    curves: dict[str, Curve]  # by metric

    @classmethod
    def of(cls, run: Run) -> Outcome:
        """Read the results of a run."""
        figures = json.loads(run.results.read_text())[run.name]
        curves = read_curves(run.directory / "metrics.csv")
        if ENTROPY in curves:
            values = [value for _, value in curves[ENTROPY]]
            figures["trace_entropy"] = statistics.fmean(values[-max(1, round(LAST_FRACTION * len(values))) :])
        return cls(run.method, short(run.base), run.seed, figures, curves)


def read_curves(path: Path) -> dict[str, Curve]:
    """The columns of a CSVLogger's file, without empty cells."""
    curves: dict[str, Curve] = {}
    if path.exists():
        with path.open(newline="") as file:
            for record in csv.DictReader(file):
                for name, value in record.items():
                    if value and name not in ("step", "epoch"):
                        curves.setdefault(name, []).append((int(record["step"]), float(value)))
    return curves
