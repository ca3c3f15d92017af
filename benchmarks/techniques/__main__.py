"""Savings of each technique compared with the plain way.

    python -m benchmarks.techniques [NAME ...] [--pairs 3] [--json FILE]

The ways alternate in subprocesses with one thread. The table shows medians of CPU seconds, and the memory of the calls
without the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import in_subprocess, table
from benchmarks.techniques.catalog import TECHNIQUES
from benchmarks.techniques.technique import Technique


def measure(technique: Technique, case: str, pairs: int) -> dict[str, dict[str, float]]:
    """Median seconds and memory of every way."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in technique.ways}
    for _ in range(pairs):
        for way in technique.ways:
            asked = {"technique": technique.name, "case": case, "way": way}
            runs[way].append(in_subprocess("benchmarks.techniques.worker", asked))
    return {
        way: {
            "seconds": statistics.median(statistics.median(run["seconds"]) for run in done),
            "memory": statistics.median(run["memory"] for run in done),
        }
        for way, done in runs.items()
    }


def rows(technique: Technique, case: str, results: dict[str, dict[str, float]]) -> list[list[str]]:
    """Table rows of a case: every way compared with the first."""
    plain = results[technique.ways[0]]

    def shown(seconds: float) -> str:
        return f"{1 / seconds:,.0f} {technique.rate}" if technique.rate else f"{seconds * 1000:,.1f} ms"

    return [
        [
            case if way == technique.ways[0] else "",
            way,
            shown(found["seconds"]),
            f"{plain['seconds'] / found['seconds']:.2f}",
            f"{found['memory']:,.0f} MB",
            f"{found['memory'] / plain['memory']:.2f}" if plain["memory"] else "",
        ]
        for way, found in results.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.techniques", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TECHNIQUES)}; all by default")
    parser.add_argument("--pairs", type=int, default=3, help="alternating processes of each way (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(TECHNIQUES):
        parser.error(f"no such technique: {', '.join(unknown)}. There are {', '.join(TECHNIQUES)}.")
    everything: dict[str, Any] = {}
    for name in options.names or TECHNIQUES:
        technique = TECHNIQUES[name]
        everything[name] = {case: measure(technique, case, options.pairs) for case in technique.cases}
        lines = [row for case in technique.cases for row in rows(technique, case, everything[name][case])]
        print(f"\n{(sys.modules[type(technique).__module__].__doc__ or '').strip()}\n")
        print(table([name, "", "CPU", "times faster", "memory", "fraction"], lines), flush=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
