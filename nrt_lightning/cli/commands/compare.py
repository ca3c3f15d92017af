"""`nrt-lightning compare`: methods and seeds side by side, in a table and a plot."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser

from nrt_lightning.errors import InputError
from nrt_lightning.tools.comparison import Comparison, Outcome, markdown_table, run_all, write_csv
from nrt_lightning.tools.comparison.plot import draw


def main(arguments: list[str]) -> None:
    """Run what is missing, then write `table.md`, `runs.csv` and a plot for each base, and print the table.

    Args:
        arguments: of the command line, without the command's name.

    Raises:
        InputError: a setting cannot be used.
    """
    parser = ArgumentParser(prog="nrt-lightning compare", description=str(Comparison.__doc__).partition("\n")[0])
    parser.add_argument("--config", action="config", help="a comparison as YAML")
    parser.add_class_arguments(Comparison)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--plot", type=bool, default=True, help="draw a plot; needs matplotlib")
    options = parser.parse_args(arguments)
    jobs, plot = options.pop("jobs"), options.pop("plot")
    options.pop("config")
    if jobs < 1:
        raise InputError(f"jobs={jobs}: give at least 1.")
    comparison = Comparison(**options.as_dict())
    failed = run_all(comparison, jobs)
    report(comparison, plot)
    if failed:
        sys.exit(f"{len(failed)} runs failed: {', '.join(run.name for run in failed)}")


def report(comparison: Comparison, plot: bool) -> None:
    """Write and print what the finished runs came to."""
    outcomes = [Outcome.of(run) for run in comparison.runs if run.finished]
    if not outcomes:
        return
    place = Path(comparison.directory).expanduser()
    table = markdown_table(outcomes)
    (place / "table.md").write_text(table + "\n")
    write_csv(place / "runs.csv", outcomes)
    bases = list(dict.fromkeys(outcome.base for outcome in outcomes))
    for base in bases if plot else []:
        draw(
            place / ("plot.png" if len(bases) == 1 else f"plot-{base}.png"),
            [replace(outcome, base="") for outcome in outcomes if outcome.base == base],
        )
    print(f"\n{table}\n\nwritten to {place}")
