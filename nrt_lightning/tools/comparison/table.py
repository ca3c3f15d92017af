"""Tables of figures over seeds: means with confidence intervals."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from nrt_lightning.tools.comparison.outcome import Outcome

DIGITS = {"seconds": 0, "cpu_seconds": 0, "trace_tokens": 1}

# Student's t at 97.5 %, by degrees of freedom; beyond them 1.96 + 2.4 / freedom is off by less than 0.01.
T_VALUES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of a mean, by Student's t; 0 for a single value.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    freedom = len(values) - 1
    if freedom < 1:
        return 0.0
    quantile = T_VALUES[freedom - 1] if freedom <= len(T_VALUES) else 1.96 + 2.4 / freedom
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def summarize(values: Sequence[float], digits: int = 3) -> str:
    """The mean and its 95 % interval, or the mean alone if all values are equal.

    >>> summarize([0.9, 1.0]), summarize([0.5, 0.5]), summarize([])
    ('0.950 ± 0.635', '0.500', '-')
    """
    if not values:
        return "-"
    width = half_width(values)
    return f"{statistics.fmean(values):.{digits}f}" + (f" ± {width:.{digits}f}" if width else "")


def grouped(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Outcomes by method and base, in their order."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.method, outcome.base), []).append(outcome)
    return groups


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """A table with a row per method and base and a column per available figure.

    >>> print(markdown_table([Outcome("sft", "", 0, {"exact_match": 0.5}, {})]))
    | method | seeds | exact match |
    |---|---:|---:|
    | `sft` | 1 | 0.500 |
    """
    from nrt_lightning.callbacks.results import COLUMNS  # imports torch

    columns = [name for name in COLUMNS if any(name in outcome.figures for outcome in outcomes)]
    bases = any(outcome.base for outcome in outcomes)
    head = ["method", *(["base"] if bases else []), "seeds", *(COLUMNS[name] for name in columns)]
    lines = [row(head), f"|{'---|' * (1 + bases)}{'---:|' * (1 + len(columns))}"]
    for (method, base), runs in grouped(outcomes).items():
        cells = [f"`{method}`", *([base] if bases else []), str(len(runs))]
        for name in columns:
            values = [run.figures[name] for run in runs if name in run.figures]
            cells.append(cell(name, values, DIGITS.get(name, 3)))
        lines.append(row(cells))
    return "\n".join(lines)


def cell(name: str, values: Sequence[float], digits: int) -> str:
    """The cell of several seeds: how many collapsed, or a mean with its interval.

    >>> cell("collapse", [0.0, 1.0], 0), cell("trace_tokens", [12.25], 1)
    ('1 of 2', '12.2')
    """
    if name == "collapse" and values:
        return f"{sum(map(int, values))} of {len(values)}"
    return summarize(values, digits)


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write all figures of every run, one run per line."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.figures))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["method", "base", "seed", *names], restval="")
        writer.writeheader()
        for outcome in outcomes:
            writer.writerow({"method": outcome.method, "base": outcome.base, "seed": outcome.seed} | outcome.figures)
