"""`nrt-lightning compare`: compare methods over several seeds in a table and a plot."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.tools.comparison import Comparison, Outcome, markdown_table, run_all, write_csv
from nrt_lightning.tools.comparison.plot import check_matplotlib, draw


def main(arguments: list[str]) -> None:
    """Run the missing runs, write `table.md`, `runs.csv` and a plot for each base, and print the table.

    Args:
        arguments: arguments of the command line after the command's name.
    """
    parser = PlainParser(prog="nrt-lightning compare", description=str(Comparison.__doc__).partition("\n")[0])
    parser.add_argument("--config", action="config", help="YAML file with these options")
    parser.add_class_arguments(Comparison)
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--plot", type=bool, default=True, help="draw a plot; needs matplotlib")
    options = parser.parse_args(arguments)
    from nrt_lightning.functional.validation import check_at_least  # imports torch, which --help does not need

    jobs, plot = options.pop("jobs"), options.pop("plot")
    options.pop("config")
    check_at_least("jobs", jobs, 1)
    comparison = Comparison(**options.as_dict())
    if plot:
        check_matplotlib()  # before the runs, which take hours
    failed = run_all(comparison, jobs)
    report(comparison, plot=plot)
    if failed:
        sys.exit(f"error: {len(failed)} runs failed: {', '.join(run.name for run in failed)}")


def report(comparison: Comparison, *, plot: bool) -> None:
    """Write and print the results of the finished runs."""
    outcomes = [Outcome.of(run) for run in comparison.runs if run.finished]
    if not outcomes:
        return
    directory = Path(comparison.directory).expanduser()
    table = markdown_table(outcomes)
    (directory / "table.md").write_text(table + "\n")
    write_csv(directory / "runs.csv", outcomes)
    bases = list(dict.fromkeys(outcome.base for outcome in outcomes))
    for base in bases if plot else []:
        draw(
            directory / ("plot.png" if len(bases) == 1 else f"plot-{base}.png"),
            [replace(outcome, base="") for outcome in outcomes if outcome.base == base],
            base,
        )
    print(f"\n{table}\n\nwritten to {directory}")
