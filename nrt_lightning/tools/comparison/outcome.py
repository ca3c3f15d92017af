"""Results of a run: test figures, and figures from the end of its curves."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from nrt_lightning.tools.comparison.experiment import Run, short
from nrt_lightning.tools.comparison.figures import Curve, read_curves, read_figures

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
        figures = read_figures(run.results, run.name)
        curves = read_curves(run.directory / "metrics.csv")
        if ENTROPY in curves:
            values = [value for _, value in curves[ENTROPY]]
            figures["trace_entropy"] = statistics.fmean(values[-max(1, round(LAST_FRACTION * len(values))) :])
        return cls(run.method, short(run.base), run.seed, figures, curves)
