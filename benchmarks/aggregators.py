"""The embedded task with each of the six aggregations and SFT, several seeds: the table in docs/results.md.

python -m benchmarks.aggregators --seeds 0 1 2 --json runs/aggregators/results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

METHODS = ["nrt_ws_neg_log_prob", "nrt_ws_inverse_prob", "nrt_gm", "nrt_am", "nrt_log_prob", "nrt_prob", "sft"]
# As the quickstart: the presets are the paper's, which clips rewards at the baseline and weighs the marker less.
AS_QUICKSTART = ["--config", "configs/advantages/unclipped.yaml", "--model.loss.marker_coef=0.6"]
COLUMNS = ["exact_match", "exact_match_forced", "exact_match_without_trace", "confidence", "seconds"]


def run(method: str, seed: int, file: Path) -> None:
    """One run of the quickstart with a method and a seed; its figures go into `file`."""
    directory = file.parent / f"{method}-{seed}"
    command = [sys.executable, "-m", "nrt_lightning", "fit", "--config", "configs/quickstart.yaml"]
    command += ["--config", f"configs/methods/{method}.yaml", f"--seed_everything={seed}"]
    command += [] if method == "sft" else AS_QUICKSTART
    command += [f"--trainer.default_root_dir={directory}", "--trainer.logger=false", "--trainer.callbacks=null"]
    command += ["--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    command += ["--trainer.callbacks+=nrt_lightning.ResultsFile"]
    command += [f"--trainer.callbacks.path={file}", f"--trainer.callbacks.name={method}-{seed}"]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{' '.join(command)}\n{out.stderr[-3000:]}")


def table(results: dict[str, dict[str, float]], seeds: list[int]) -> str:
    """Median over seeds, and the range where seeds differ, as Markdown.

    >>> print(table({"sft-0": {"exact_match": 0.1}, "sft-1": {"exact_match": 0.3}}, [0, 1]).splitlines()[-1])
    | `sft` | 0.200 (0.100 to 0.300) | - | - | - | - |
    """
    lines = ["| method | " + " | ".join(c.replace("_", " ") for c in COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for method in METHODS:
        runs = [results[f"{method}-{seed}"] for seed in seeds if f"{method}-{seed}" in results]
        if runs:
            lines.append(f"| `{method}` | " + " | ".join(cell(column, runs) for column in COLUMNS) + " |")
    return "\n".join(lines)


def cell(column: str, runs: list[dict[str, float]]) -> str:
    """A column's median over runs, with its range."""
    values = [r[column] for r in runs if column in r]
    if not values:
        return "-"
    digits = 0 if column == "seconds" else 3
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    """Run what is missing in the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--json", type=Path, default=Path("runs/aggregators/results.json"))
    options = parser.parse_args()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for method in options.methods:
            done = json.loads(options.json.read_text()) if options.json.exists() else {}
            if f"{method}-{seed}" not in done:
                print(f"{method}, seed {seed}", flush=True)
                run(method, seed, options.json)
    print(table(json.loads(options.json.read_text()), options.seeds))


if __name__ == "__main__":
    main()
