"""The picture in the README: exact match of NRT and SFT during the quickstart.

    python -m benchmarks.quickstart_picture [--runs runs/quickstart] [--png docs/quickstart.png]

It reads what `make quickstart` writes: the validation curves in `metrics.jsonl` and the CPU seconds in `results.json`,
which, unlike seconds by the clock, hardly depend on other work of the machine.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from nrt_lightning.callbacks.run_lines import read_lines

METRIC = "val/exact_match"
COLORS = {"nrt": "#4b3fce", "sft": "#8b929e"}
NAMES = {"nrt": "NRT", "sft": "SFT"}
TITLE = "Exact match on validation questions; in bold, on test questions after training"
INK, FAINT = "#30343b", "#e7e9ee"


@dataclass
class Run:
    """One run of the quickstart."""

    name: str
    steps: int
    seconds: list[float]  # CPU seconds of training at each validation
    exact_match: list[float]  # on the validation questions
    final: float  # on the test questions, after training

    @classmethod
    def read(cls, directory: Path, name: str) -> Run:
        """Read a run's curve and its final figures.

        Args:
            directory: of the quickstart's runs.
            name: of the run: `nrt` or `sft`.
        """
        results = json.loads((directory / "results.json").read_text())[name]
        lines, _ = read_lines(directory / "tensorboard" / name / "metrics.jsonl")
        steps, points = max(line["step"] for line in lines), [line for line in lines if METRIC in line]
        seconds = [point["step"] / steps * results["cpu_seconds"] for point in points]
        return cls(name, steps, seconds, [point[METRIC] for point in points], results["exact_match"])


def draw(runs: list[Run], file: Path) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for run in runs:
        color = COLORS[run.name]
        axes.plot(run.seconds, run.exact_match, color=color, linewidth=2.4, marker="o", markersize=4.5, clip_on=False)
        end = run.seconds[-1], run.exact_match[-1]
        below = {"textcoords": "offset points", "color": color, "va": "center"}
        axes.annotate(f"{NAMES[run.name]} {run.final:.3f}", end, (10, -7), weight="bold", size=12, **below)
        axes.annotate(f"{run.steps:,} steps", end, (10, -22), size=9, **below)
    last = max(run.seconds[-1] for run in runs)
    axes.set(xlim=(0, 1.18 * last), ylim=(-0.02, 1.02))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_xticks(range(0, int(last) + 1, 20))
    axes.set_xlabel("CPU seconds of training", color=INK)
    axes.set_title(TITLE, loc="left", color=INK, size=11, pad=12)
    axes.grid(axis="y", color=FAINT, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    figure.savefig(file, dpi=160)


def main(arguments: list[str] | None = None) -> None:
    """Read the two runs and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/quickstart"), help="of the runs (%(default)s)")
    parser.add_argument("--png", type=Path, default=Path("docs/quickstart.png"), help="to write (%(default)s)")
    options = parser.parse_args(arguments)
    draw([Run.read(options.runs, name) for name in NAMES], options.png)


if __name__ == "__main__":
    main()
