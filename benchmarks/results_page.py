"""Tables of docs/results.md, from the runs of `make results` and `make results-second-bases`.

    python -m benchmarks.results_page > tables.md

Means over seeds with 95 % intervals. Missing runs and tables without runs are left out.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from nrt_lightning.tools.comparison.figures import Curve, read_curves
from nrt_lightning.tools.comparison.table import cell, row

RUNS = Path("runs/compare")
AGGREGATIONS = {
    "ws_neg_log_prob": "WS -log p", "ws_inverse_prob": "WS 1/p", "prob": "Prob", "am": "ArithmeticMean",
    "gm": "GeometricMean", "log_prob": "LogProb",
}  # fmt: skip
FORMS = ("unclipped", "clipped")
NRT = [f"{name}_{form}" for form in FORMS for name in AGGREGATIONS]
BASES = ("reports-base", "made-up-reports-base")
HARD = "checked_match_forced"
COLUMNS = {
    "exact_match": ("exact match", 3), "exact_match_forced": ("marker forced", 3), "checked_match": ("hard tokens", 3),
    HARD: ("hard, marker forced", 3), "trace_tokens": ("trace tokens", 1), "trace_entropy": ("entropy, nats", 2),
    "collapse": ("collapsed", 0), "cpu_seconds": ("CPU s", 0),
}  # fmt: skip
SHORT = ("exact_match", "exact_match_forced", "trace_tokens", "trace_entropy", "collapse", "cpu_seconds")
LONG = ("exact_match", "checked_match", HARD, "trace_tokens", "trace_entropy", "collapse", "cpu_seconds")

Runs = dict[int, dict[str, float]]  # figures by seed


def load(comparison: str) -> dict[tuple[str, str], Runs]:
    """Figures of a comparison's runs by base and method."""
    found: dict[tuple[str, str], Runs] = {}
    path = RUNS / comparison / "runs.csv"
    if path.exists():
        with path.open(newline="") as file:
            for record in csv.DictReader(file):
                base, method, seed = (record.pop(name) for name in ("base", "method", "seed"))
                runs = found.setdefault((base, method), {})
                runs[int(seed)] = {name: float(value) for name, value in record.items() if value}
    return found


def values(runs: Runs, name: str) -> list[float]:
    """A figure of all seeds that have it."""
    return [runs[seed][name] for seed in sorted(runs) if name in runs[seed]]


def table(found: dict[str, Runs], columns: Sequence[str]) -> Iterator[str]:
    """One line per method."""
    if found:
        yield row(["method", "seeds", *(COLUMNS[name][0] for name in columns)])
        yield f"|---|{'---:|' * (1 + len(columns))}"
    for method, runs in found.items():
        cells = [f"`{method}`", str(len(runs))]
        for name in columns:
            cells.append(cell(name, values(runs, name), COLUMNS[name][1]))
        yield row(cells)


def deciles(found: dict[str, Runs]) -> Iterator[str]:
    """Gain by difficulty, hardest first."""
    names = [f"gain_decile_{i}" for i in range(1, 11)]
    yield row(["method", *(str(i) for i in range(1, 11))])
    yield f"|---|{'---:|' * 10}"
    for method, runs in found.items():
        if all(values(runs, name) for name in names):
            yield row([f"`{method}`", *(f"{statistics.fmean(values(runs, name)):.2f}" for name in names)])


def grid(found: dict[tuple[str, str], Runs]) -> Iterator[str]:
    """Hard tokens by aggregation and seed."""
    yield row(["aggregation", *(f"`{base}`, {form}" for base in BASES for form in FORMS)])
    yield "|---|---|---|---|---|"
    for name, title in AGGREGATIONS.items():
        cells = [values(found.get((base, f"{name}_{form}"), {}), HARD) for base in BASES for form in FORMS]
        yield row([title, *(" / ".join(f"{value:.2f}".replace("0.", ".") for value in cell) for cell in cells)])


def at_step(comparison: str, base: str, step: int) -> Iterator[str]:
    """Hard tokens on the validation questions in the middle of training, means over seeds."""
    yield row([f"`{base}`, after {step} steps", *AGGREGATIONS.values()])
    yield f"|---|{'---:|' * len(AGGREGATIONS)}"
    for form in FORMS:
        cells = [form]
        for name in AGGREGATIONS:
            curves = [
                read_curves(run / "metrics.csv") for run in sorted((RUNS / comparison).glob(f"{name}_{form}-{base}-?"))
            ]
            points = [found for curve in curves for found in at(curve.get(f"val/{HARD}", []), step)]
            cells.append(f"{statistics.fmean(points):.2f}" if points else "-")
        yield row(cells)


def at(curve: Curve, step: int) -> list[float]:
    """A curve's value after this many steps."""
    return [value for done, value in curve if done + 1 == step]


def sections() -> Iterator[tuple[str, Iterator[str]]]:
    """Titles and tables of the available runs."""
    for name in ("registers", "second_registers", "pointers", "second_pointers"):
        found = {method: runs for (_, method), runs in load(name).items()}
        if found:
            yield name, table(found, SHORT)
            yield f"{name}: gain by difficulty", deciles(found)
    for name, steps in {"reports": [60], "long_reports": [120, 240, 360]}.items():
        by_base = load(name)
        if by_base:
            yield f"{name}: hard tokens by seed", grid(by_base)
        for base in dict.fromkeys(base for base, _ in by_base):
            runs = {method: runs for (found_base, method), runs in by_base.items() if found_base == base}
            yield f"{name} {base}: aggregations", table({m: r for m, r in runs.items() if m in NRT}, LONG)
            yield f"{name} {base}: others", table({m: r for m, r in runs.items() if m not in NRT}, LONG)
            yield f"{name} {base}: gain by difficulty", deciles(runs)
            for step in steps:
                yield f"{name} {base}: step {step}", at_step(name, base, step)


def main() -> None:
    """Print all tables."""
    for title, lines in sections():
        print(f"## {title}\n", *lines, "", sep="\n")


if __name__ == "__main__":
    main()
