"""Plots a comparison: learning curves, test figures, and gains by difficulty."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.tools.comparison.outcome import Outcome
from nrt_lightning.tools.comparison.table import grouped, half_width

MEASURES = ("checked_match_forced", "exact_match_forced")  # the first available one is plotted
LABELS = {
    "checked_match_forced": "hard tokens right, marker forced",
    "exact_match_forced": "exact match, marker forced",
}
DECILES = range(1, 11)


def check_matplotlib() -> None:
    """Refuse plots without matplotlib.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The plot needs matplotlib: pip install 'nrt-lightning[plot]', or give --plot=false."
        ) from error


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draw a plot and write it to a file.

    Args:
        path: a `.png`, `.svg` or `.pdf` file.
        outcomes: at least one.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = grouped(outcomes)
    measure = next(name for name in MEASURES if any(name in o.figures for o in outcomes) or name == MEASURES[-1])
    figure = Figure(figsize=(15, 0.22 * len(groups) + 3), layout="constrained")
    FigureCanvasAgg(figure)
    learning, final, gains = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    order = [*range(0, 20, 2), *range(1, 20, 2)]  # saturated colors first
    colors = {key: colormaps["tab20"](order[i % 20]) for i, key in enumerate(groups)}
    for key, runs in groups.items():
        draw_learning(learning, runs, f"val/{measure}", colors[key])
        draw_gains(gains, runs, colors[key])
    draw_final(final, groups, measure, colors)
    learning.set(xlabel="fraction of training", ylabel=f"validation: {LABELS[measure]}", ylim=(-0.02, 1.02))
    gains.set(xlabel="decile of difficulty, hardest first", ylabel="confidence with trace / without", yscale="log")
    gains.set_xticks(list(DECILES))
    for which in (gains.yaxis.set_major_formatter, gains.yaxis.set_minor_formatter):
        which("{x:g}")
    figure.savefig(path, dpi=110)


def name_of(key: tuple[str, str]) -> str:
    """Label of a method, with its base if there are several."""
    return " from ".join(part for part in key if part)


def draw_learning(axes: Any, runs: Sequence[Outcome], metric: str, color: Any) -> None:
    """Mean over seeds at every validation, by fraction of training, as methods differ in their number of steps."""
    points: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.curves.get(metric, []):
            points.setdefault(step + 1, []).append(value)
    steps = sorted(points)
    axes.plot([step / steps[-1] for step in steps], [statistics.fmean(points[step]) for step in steps], color=color)


def draw_final(axes: Any, groups: dict[tuple[str, str], list[Outcome]], measure: str, colors: dict[Any, Any]) -> None:
    """Test figure of every seed, with mean and 95 % interval; the tick labels are the legend of all panels."""
    for height, (key, runs) in enumerate(groups.items()):
        values = [run.figures[measure] for run in runs if measure in run.figures]
        if values:
            mean, width = statistics.fmean(values), half_width(values)
            axes.errorbar(mean, height, xerr=width, fmt="o", color=colors[key], capsize=3)
            axes.plot(values, [height] * len(values), "|", color=colors[key], markersize=9)
    axes.set(xlim=(-0.02, 1.05), xlabel=f"test: {LABELS[measure]}")
    axes.set_yticks(range(len(groups)), [name_of(key) for key in groups])
    for label, key in zip(axes.get_yticklabels(), groups, strict=True):
        label.set(color=colors[key], weight="bold")
    axes.invert_yaxis()


def draw_gains(axes: Any, runs: Sequence[Outcome], color: Any) -> None:
    """Confidence in answer tokens with the trace, divided by that without, by difficulty."""
    values = [[run.figures[f"gain_decile_{d}"] for run in runs if f"gain_decile_{d}" in run.figures] for d in DECILES]
    if all(values):
        axes.plot(list(DECILES), [statistics.fmean(decile) for decile in values], marker=".", color=color)
