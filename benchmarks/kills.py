"""Kills runs of many configurations at random moments, resumes them, and compares every micro-batch.

    python -m benchmarks.kills --runs 200 --page docs/reliability.md

Results are kept in `--directory`: a suite that was interrupted goes on, and `--again NAME` runs a configuration anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- table of benchmarks/kills.py -->", "<!-- end -->"


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--command-line", type=int, default=30, help="of the runs, those by `nrt-lightning fit`")
    parser.add_argument("--only", nargs="*", default=[], help="configurations whose name contains one of these")
    parser.add_argument("--each", type=int, help="runs of each configuration, in place of --runs")
    parser.add_argument("--again", nargs="*", default=[], help="forget the results of these configurations")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=Path("runs/kills"))
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    return parser.parse_args()


def main() -> int:
    """Run the suite, and print its table; 1 if a run differs."""
    options = arguments()
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from faults import suite

    torch.set_num_threads(1)
    directory, started = options.directory.absolute(), time.monotonic()
    path = directory / "results.jsonl"
    if options.again:
        kept = [line for line in path.read_text().splitlines() if not any(name in line for name in options.again)]
        path.write_text("".join(line + "\n" for line in kept))
    names = [*suite.COMMAND_LINES, *suite.SCENARIOS]
    names = [name for name in names if not options.only or any(word in name for word in options.only)]
    if options.each is None:
        chosen = [case for case in suite.cases(options.runs, options.command_line) if case.scenario in names]
    else:
        chosen = [suite.Case(name, number) for number in range(options.each) for name in names]
    for one in suite.run_all(chosen, directory, options.jobs):
        sign = "equal" if one["equal"] else f"DIFFERS {one['problems']}"
        print(f"{one['scenario']} {one['number']}: {one['came']} kills, {one['seconds']:.0f} s, {sign}", flush=True)
    wanted = {(case.scenario, case.number) for case in chosen}
    found = [one for one in suite.results(path) if (one["scenario"], one["number"]) in wanted]
    text = suite.table(found)
    print(f"{text}\n{(time.monotonic() - started) / 60:.0f} minutes")
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        options.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return int(not all(one["equal"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
