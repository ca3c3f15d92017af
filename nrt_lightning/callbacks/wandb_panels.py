"""Panels of Weights & Biases with several curves each: values that belong together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nrt_lightning.callbacks.run_history import histories
from nrt_lightning.callbacks.run_lines import thinned
from nrt_lightning.callbacks.step_axis import axis_of
from nrt_lightning.metrics.logged_values import CHARTS

POINTS = 300  # of a curve, about as many as a screen shows apart


def log_panels(trainer: Any, logger: Any, seen: Collection[str]) -> None:
    """Log one chart for each group of values of which two or more have been logged. Rank zero calls it, at the end.

    Args:
        trainer: whose `RunHistory` has the values.
        logger: a `WandbLogger`.
        seen: names that have been logged.
    """
    import wandb

    found, unit = histories(trainer), axis_of(trainer).unit
    lines = found[0].file.read() if found else []
    panels = {}
    for number, (group, charts) in enumerate(CHARTS.items(), start=1):
        for title, values in charts.items():
            names = [name for name in values if name in seen]
            rows = [thinned([line for line in lines if line.get(name) is not None], POINTS) for name in names]
            if len(names) < 2 or not all(rows):
                continue
            xs = [[row["step" if unit == "steps" else unit] for row in kept] for kept in rows]
            ys = [[row[name] for row in kept] for name, kept in zip(names, rows, strict=True)]
            chart = wandb.plot.line_series(xs=xs, ys=ys, keys=names, title=title, xname=unit, split_table=True)
            panels[f"{number}_{group}/{title}"] = chart  # in the section of its group
    if panels:
        logger.experiment.log({**panels, "trainer/global_step": axis_of(trainer).step(trainer)})
