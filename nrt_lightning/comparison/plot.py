"""A comparison as a picture: how fast, how well, and where in the answer traces help."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nrt_lightning.comparison.outcome import Outcome
from nrt_lightning.comparison.table import grouped, half_width
from nrt_lightning.errors import InputError

MEASURES = ("checked_match_forced", "exact_match_forced")  # the first that is there
LABELS = {
    "checked_match_forced": "hard tokens right, marker forced",
    "exact_match_forced": "exact match, marker forced",
}
DECILES = range(1, 11)


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the picture.

    Args:
        path: a `.png`, `.svg` or `.pdf`.
        outcomes: at least one.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "The plot needs matplotlib: pip install 'nrt-lightning[plot]', or give --plot=false."
        ) from error
    groups = grouped(outcomes)
    measure = next(name for name in MEASURES if any(name in o.figures for o in outcomes) or name == MEASURES[-1])
    figure = Figure(figsize=(15, 0.28 * len(groups) + 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    learning, final, gains = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    styles = {key: {"color": f"C{i % 10}", "linestyle": ("-", "--", ":")[i // 10 % 3]} for i, key in enumerate(groups)}
    for key, runs in groups.items():
        draw_learning(learning, runs, f"val/{measure}", styles[key], name_of(key))
        draw_gains(gains, runs, styles[key])
    draw_final(final, groups, measure, styles)
    learning.set(xlabel="optimizer steps", ylabel=f"validation: {LABELS[measure]}", ylim=(-0.02, 1.02))
    gains.set(xlabel="decile of difficulty, hardest first", ylabel="confidence with trace / without", yscale="log")
    gains.set_xticks(list(DECILES))
    if len(groups) > 1:
        figure.legend(*learning.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=110)


def name_of(key: tuple[str, str]) -> str:
    """A method, with its base where there are several."""
    return " from ".join(part for part in key if part)


def draw_learning(axes: Any, runs: Sequence[Outcome], metric: str, style: dict[str, Any], label: str) -> None:
    """The mean over seeds at every validation, and the range of the seeds."""
    points: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.curves.get(metric, []):
            points.setdefault(step + 1, []).append(value)
    steps = sorted(points)
    axes.plot(steps, [statistics.fmean(points[step]) for step in steps], label=label, **style)
    low, high = [min(points[step]) for step in steps], [max(points[step]) for step in steps]
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)


def draw_final(axes: Any, groups: dict[tuple[str, str], list[Outcome]], measure: str, styles: dict[Any, Any]) -> None:
    """The test's figure of every seed, their mean and its 95 % interval."""
    for place, (key, runs) in enumerate(groups.items()):
        values = [run.figures[measure] for run in runs if measure in run.figures]
        if values:
            color, mean, width = styles[key]["color"], statistics.fmean(values), half_width(values)
            axes.errorbar(mean, place, xerr=width, fmt="o", color=color, capsize=3)
            axes.plot(values, [place] * len(values), "|", color=color, markersize=9)
    axes.set(xlim=(-0.02, 1.05), xlabel=f"test: {LABELS[measure]}")
    axes.set_yticks(range(len(groups)), [name_of(key) for key in groups], fontsize="small")
    axes.invert_yaxis()


def draw_gains(axes: Any, runs: Sequence[Outcome], style: dict[str, Any]) -> None:
    """Confidence in answer tokens with the trace over that without, by difficulty."""
    values = [[run.figures[f"gain_decile_{d}"] for run in runs if f"gain_decile_{d}" in run.figures] for d in DECILES]
    if all(values):
        axes.plot(list(DECILES), [statistics.fmean(decile) for decile in values], marker=".", **style)
