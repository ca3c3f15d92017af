"""Plots a comparison: learning curves, test figures, and gains by difficulty."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.tools.comparison.labels import Look, apart, looks
from nrt_lightning.tools.comparison.outcome import Outcome
from nrt_lightning.tools.comparison.table import grouped, half_width

MEASURES = ("checked_match_forced", "exact_match_forced")  # the first available one is plotted
LABELS = {
    "checked_match_forced": "hard tokens right, marker forced",
    "exact_match_forced": "exact match, marker forced",
}
DECILES = range(1, 11)
INK, FAINT = "#30343b", "#e7e9ee"
Groups = dict[tuple[str, str], list[Outcome]]
Line = tuple[list[float], list[float]]


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


def draw(path: Path, outcomes: Sequence[Outcome], base: str = "") -> None:
    """Draw a plot and write it to a file. Panels for which nothing was measured are left out.

    Args:
        path: a `.png`, `.svg` or `.pdf` file.
        outcomes: at least one.
        base: that the runs started from, for the title.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = best_first(grouped(outcomes), measure := measure_of(outcomes))
    styles = dict(zip(groups, looks(len(groups)), strict=True))
    learning = {key: line for key, runs in groups.items() if (line := learning_of(runs, f"val/{measure}"))}
    gains = {key: line for key, runs in groups.items() if (line := gains_of(runs))}
    final = any(measure in run.figures for run in outcomes)
    widths = [width for width, shown in ((1.35, learning), (1.0, final), (1.2, gains)) if shown]
    height = 0.24 * len(groups) + 1.9
    figure = Figure(figsize=(2 + 5.2 * sum(widths or [1]), max(4.2, height)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title(outcomes, base), x=0.01, ha="left", color=INK, size=13)
    axes = iter(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0] if widths else [])
    if final:
        draw_final(next(axes), groups, measure, styles)
    if learning:
        panel = next(axes)
        draw_lines(panel, learning, styles)
        panel.set(xlabel="fraction of training", ylabel=f"validation: {LABELS[measure]}", ylim=(-0.02, 1.02))
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    if gains:
        panel = next(axes)
        panel.set_yscale("log")
        panel.invert_xaxis()  # lines are far apart at the hardest, where their names are
        draw_lines(panel, gains, styles)
        panel.set(xlabel="decile of difficulty, 1 is the hardest", ylabel="confidence with trace / without")
        panel.set_xticks(list(DECILES))
        for which in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
            which("{x:g}")
    figure.savefig(path, dpi=110)


def title(outcomes: Sequence[Outcome], base: str) -> str:
    """What is compared.

    >>> title([Outcome("sft", "", 0, {}, {}), Outcome("nrt", "", 0, {}, {})], "registers-base")
    '2 methods from registers-base, 1 seed each'
    """
    methods = len({outcome.method for outcome in outcomes})
    counts = sorted({len(runs) for runs in grouped(outcomes).values()})
    seeds = f"{counts[0]} seed{'s' * (counts[0] > 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    start = f" from {base}" if base else ""
    return f"{methods} method{'s' * (methods > 1)}{start}, {seeds} each"


def measure_of(outcomes: Sequence[Outcome]) -> str:
    """The measure that is plotted."""
    return next(name for name in MEASURES if any(name in o.figures for o in outcomes) or name == MEASURES[-1])


def best_first(groups: Groups, measure: str) -> Groups:
    """The methods by their test figure, so that lines and names are found in the same order."""

    def mean(key: tuple[str, str]) -> float:
        values = [run.figures[measure] for run in groups[key] if measure in run.figures]
        return statistics.fmean(values) if values else -1.0

    return {key: groups[key] for key in sorted(groups, key=mean, reverse=True)}


def name_of(key: tuple[str, str]) -> str:
    """Label of a method, with its base if there are several."""
    return " from ".join(part for part in key if part)


def learning_of(runs: Sequence[Outcome], metric: str) -> Line | None:
    """Mean over seeds at every validation, by fraction of training, as methods differ in their number of steps."""
    points: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.curves.get(metric, []):
            points.setdefault(step + 1, []).append(value)
    steps = sorted(points)
    return ([step / steps[-1] for step in steps], [statistics.fmean(points[step]) for step in steps]) if steps else None


def gains_of(runs: Sequence[Outcome]) -> Line | None:
    """Confidence in answer tokens with the trace, divided by that without, by difficulty."""
    values = [[run.figures[f"gain_decile_{d}"] for run in runs if f"gain_decile_{d}" in run.figures] for d in DECILES]
    means = [statistics.fmean(decile) for decile in values if decile]
    return ([float(d) for d in DECILES][::-1], means[::-1]) if all(values) else None


def draw_lines(axes: Any, lines: dict[tuple[str, str], Line], styles: dict[tuple[str, str], Look]) -> None:
    """Lines with their names at their ends, moved apart where they would cover each other."""
    for key, (x, y) in lines.items():
        axes.plot(x, y, **styles[key].line(), clip_on=False)
    plain(axes)
    ends = {key: (x[-1], y[-1]) for key, (x, y) in lines.items()}
    axes.figure.draw_without_rendering()  # fixes the limits, which labels are placed by
    transform, box = axes.transData, axes.get_window_extent()
    heights = [(transform.transform(end)[1] - box.y0) / box.height for end in ends.values()]
    step = min(1.0 / max(len(ends) - 1, 1), 11 * axes.figure.dpi / 72 / box.height)  # of a line of text
    for (key, end), height in zip(ends.items(), apart(heights, step), strict=True):
        color = styles[key].color
        leader = {"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 0, "shrinkB": 2}
        axes.annotate("", end, (1.05, height), textcoords="axes fraction", arrowprops=leader, annotation_clip=False)
        axes.text(1.06, height, name_of(key), transform=axes.transAxes, color=color, size=8, va="center")


def draw_final(axes: Any, groups: Groups, measure: str, styles: dict[tuple[str, str], Look]) -> None:
    """Test figure of every seed, with mean and 95 % interval."""
    for height, (key, runs) in enumerate(groups.items()):
        values = [run.figures[measure] for run in runs if measure in run.figures]
        look = styles[key]
        if values:
            mean, width = statistics.fmean(values), half_width(values)
            axes.errorbar(mean, height, xerr=width, fmt=look.marker, color=look.color, capsize=3, markersize=6)
            axes.plot(values, [height] * len(values), "|", color=look.color, markersize=9)
    axes.set(xlim=(-0.02, 1.05), ylim=(-0.7, len(groups) - 0.3), xlabel=f"test: {LABELS[measure]}")
    axes.set_yticks(range(len(groups)), [name_of(key) for key in groups])
    plain(axes)
    for label, key in zip(axes.get_yticklabels(), groups, strict=True):
        label.set(color=styles[key].color, weight="bold", size=9)
    axes.invert_yaxis()


def plain(axes: Any) -> None:
    """Light grid lines, and no frame."""
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
