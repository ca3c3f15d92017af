"""Tables and the curve of the comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

Figures = Mapping[str, Mapping[str, float]]  # by run and metric
NAMES = {"base": "base", "nrt": "NRT", "sft": "SFT"}
COLUMNS = {
    "exact_match": "exact match", "exact_match_forced": "marker forced", "exact_match_without_trace": "without trace",
    "confidence": "confidence", "trace_tokens": "trace tokens", "seconds": "seconds",
}  # fmt: skip


def table(by_seed: Mapping[int, Figures]) -> str:
    """All figures by run and seed, in Markdown, with means where there are several seeds.

    >>> print(table({0: {"nrt": {"exact_match": 0.5}}}))
    | run | seed | exact match | marker forced | without trace | confidence | trace tokens | seconds |
    |---|---|---|---|---|---|---|---|
    | NRT | 0 | 0.500 | - | - | - | - | - |
    """
    lines = [["run", "seed", *COLUMNS.values()], ["---"] * (2 + len(COLUMNS))]
    for run in NAMES:
        found = {seed: figures[run] for seed, figures in by_seed.items() if run in figures}
        lines += [[NAMES[run], str(seed), *cells(figures)] for seed, figures in found.items()]
        if len(found) > 1:
            means = {c: statistics.fmean(f[c] for f in found.values()) for c in COLUMNS
                     if all(c in f for f in found.values())}  # fmt: skip
            lines.append([f"**{NAMES[run]}**", "mean", *cells(means)])
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else "|---" * len(line) + "|" for line in lines)


def cells(figures: Mapping[str, float]) -> list[str]:
    """The values of a line."""
    return ["-" if c not in figures else f"{figures[c]:.{1 if c in ('trace_tokens', 'seconds') else 3}f}"
            for c in COLUMNS]  # fmt: skip


def curve(by_rows: Mapping[int, Mapping[int, Figures]]) -> str:
    """Exact match over the number of rows, in Markdown, as the mean over seeds.

    >>> print(curve({100: {0: {"nrt": {"exact_match": 0.5}, "sft": {"exact_match": 0.25}}}}))
    | rows | base | NRT | SFT |
    |---|---|---|---|
    | 100 | - | 0.500 | 0.250 |
    """
    lines = [f"| rows | {' | '.join(NAMES.values())} |", "|---" * (1 + len(NAMES)) + "|"]
    for rows, by_seed in sorted(by_rows.items()):
        values = [means(by_seed, run) for run in NAMES]
        lines.append(f"| {rows} | " + " | ".join("-" if v is None else f"{v:.3f}" for v in values) + " |")
    return "\n".join(lines)


def means(by_seed: Mapping[int, Figures], run: str) -> float | None:
    """The mean exact match of a run; None without one."""
    found = [figures[run]["exact_match"] for figures in by_seed.values() if run in figures]
    return statistics.fmean(found) if found else None


def draw(by_rows: Mapping[int, Mapping[int, Figures]], path: Path) -> None:
    """Draw the curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2))
    rows = sorted(by_rows)
    for run, color in {"base": "0.6", "sft": "tab:orange", "nrt": "tab:blue"}.items():
        points = [(count, mean) for count in rows if (mean := means(by_rows[count], run)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=color, label=NAMES[run])
    axes.set(xscale="log", xlabel="training rows", ylabel="exact match, unseen rows", ylim=(0, 1))
    axes.set_xticks(rows, [str(count) for count in rows])
    axes.minorticks_off()
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
