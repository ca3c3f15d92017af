"""Growth of a step's cost with its sizes: a CSV file and a plot.

    python -m benchmarks.growth [--csv docs/growth.csv] [--png docs/growth.png] [--read]

One size at a time differs from a common base. Every case is a subprocess with one thread; CPU seconds are medians over
its steps. All traces have the full length, so the work of a case is known.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import in_subprocess, medians, table
from benchmarks.workload import Workload

BASE = Workload(
    prompt_tokens=(64, 64),
    answer_tokens=(16, 16),
    hidden=128,
    intermediate=352,
    layers=2,
    ends_after=0,
)
SIZES: dict[str, tuple[int, ...]] = {
    "group size": (2, 4, 8, 16, 32),
    "trace tokens": (64, 128, 256, 512, 1024),
    "vocabulary": (8192, 16384, 32768, 65536, 131072),
    "prompt tokens": (64, 128, 256, 512, 1024),
}
COLUMNS = ("rollout", "forward", "backward", "step", "memory")


def workload(size: str, value: int) -> Workload:
    """The base with one size changed."""
    changes: dict[str, Any] = {
        "group size": {"group_size": value},
        "trace tokens": {"trace_tokens": value},
        "vocabulary": {"vocabulary": value},
        "prompt tokens": {"prompt_tokens": (value,) * BASE.prompts},
    }[size]
    return dataclasses.replace(BASE, **changes)


def measure(work: Workload, steps: int) -> dict[str, float]:
    """Median CPU seconds by phase, and MB that the run used after its imports."""
    run = in_subprocess("benchmarks.run_ours", {"work": work.to_json(), "steps": steps})
    return medians(run["seconds"]) | {"memory": run["memory_peak"] - run["memory_imported"]}


def exponents(values: tuple[int, ...], amounts: list[float]) -> list[float]:
    """The power of growth between neighboring sizes: 1 is linear, 0 constant, 2 quadratic.

    >>> exponents((2, 4, 8), [1.0, 2.0, 8.0])
    [1.0, 2.0]
    """
    pairs = list(zip(values, amounts))
    return [math.log(b / a) / math.log(v / u) for (u, a), (v, b) in pairwise(pairs)]


def plot(results: dict[str, list[dict[str, float]]], file: Path) -> None:
    """One panel per size: seconds by phase on the left axis (logarithmic), memory on the right axis (linear)."""
    import matplotlib  # needed for the plot only

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for panel, (size, found) in zip(panels.flat, results.items()):
        values = SIZES[size]
        for name, mark in zip(("step", "rollout", "forward", "backward"), "osD^"):
            panel.plot(values, [row[name] for row in found], marker=mark, markersize=4, label=name)
        last = found[-1]["step"]
        panel.plot(values, [last * v / values[-1] for v in values], color="grey", linestyle=":", label="linear growth")
        panel.set_title(size, loc="left", fontweight="bold", fontsize="medium")
        panel.set(ylabel="CPU seconds a step", xscale="log", yscale="log")
        panel.set_xticks(values, [f"{v:,}" for v in values])
        panel.minorticks_off()
        panel.yaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
        right = panel.twinx()
        right.plot(values, [row["memory"] for row in found], color="black", linestyle="--", label="memory (right axis)")
        right.set(ylabel="peak memory, MB", ylim=(0, None))
        lines = [*panel.get_lines(), *right.get_lines()]
    figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), frameon=False, fontsize="small")
    pyplot.close(figure)
    figure.savefig(file, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--csv", type=Path, default=Path("docs/growth.csv"), help="file for the figures (%(default)s)")
    parser.add_argument("--png", type=Path, default=Path("docs/growth.png"), help="file for the plot (%(default)s)")
    parser.add_argument("--read", action="store_true", help="plot the CSV file without measuring")
    parser.add_argument("--steps", type=int, default=2, help="measured steps of a case (%(default)s)")
    options = parser.parse_args(arguments)
    if not options.read:
        write(measure_all(options.steps), options.csv)
    plot(read(options.csv), options.png)


def measure_all(steps: int) -> dict[str, list[dict[str, float]]]:
    """Measure every case, and print the table of every size."""
    known: dict[Workload, dict[str, float]] = {}  # the base is a case of every size
    results: dict[str, list[dict[str, float]]] = {}
    for size, values in SIZES.items():
        works = [workload(size, value) for value in values]
        known |= {work: measure(work, steps) for work in works if work not in known}
        results[size] = [known[work] for work in works]
        print(report(size, results[size]), flush=True)
    return results


def write(results: dict[str, list[dict[str, float]]], file: Path) -> None:
    with file.open("w", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(["size", "value", *COLUMNS])
        for size, found in results.items():
            for value, row in zip(SIZES[size], found):
                lines.writerow([size, value, *(f"{row[name]:.3f}" for name in COLUMNS)])


def read(file: Path) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {size: [] for size in SIZES}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            results[row["size"]].append({name: float(row[name]) for name in COLUMNS})
    return results


def report(size: str, found: list[dict[str, float]]) -> str:
    """A table of one size, with the power of growth of step time and memory between neighboring rows."""
    values = SIZES[size]
    powers = {name: ["", *(f"{p:.2f}" for p in exponents(values, [r[name] for r in found]))] for name in COLUMNS[3:]}
    rows = [
        [
            f"{value:,}",
            *(f"{row[name]:.2f}" for name in COLUMNS[:4]),
            powers["step"][i],
            f"{row['memory']:.0f}",
            powers["memory"][i],
        ]
        for i, (value, row) in enumerate(zip(values, found))
    ]
    return table([size, *COLUMNS[:4], "power", "memory, MB", "power"], rows) + "\n"


if __name__ == "__main__":
    main()
