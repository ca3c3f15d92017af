"""Hundreds of runs killed at random moments, each compared with a run that nobody killed. See `benchmarks/kills.py`.

Every run is a process that is forked from this one. Its result is a line of a file; a suite that is interrupted goes on
where it was.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.command_line import COMMAND_LINES, run_command_line
from faults.killed_runs import Kill, differences, notes_of, run_with_kills
from faults.scenarios import SCENARIOS
from faults.watching import MOMENTS

MOST = 4  # kills of a run
DELAY = 0.15  # seconds after a moment, at most


@dataclass(frozen=True)
class Case:
    """One run that is killed."""

    scenario: str
    number: int

    @property
    def by_command_line(self) -> bool:
        """True if every part is a process of its own, `nrt-lightning fit`."""
        return self.scenario in COMMAND_LINES

    def kills(self, places: int, processes: int) -> list[Kill]:
        """Random kills of a run of this many micro-batches, the earliest first."""
        draw = random.Random(f"{self.scenario}/{self.number}")
        found = []
        for place in sorted(draw.choices(range(places), k=draw.randint(1, MOST))):
            moment = draw.choice(MOMENTS)
            number = draw.choices((signal.SIGKILL, signal.SIGTERM), weights=(3, 1))[0]
            delay = float(draw.randrange(8)) if moment == "saving" else draw.choice((0, draw.uniform(0, DELAY)))
            found.append(Kill(moment, place, int(number), delay, draw.randrange(processes), sure=False))
        return found


def cases(runs: int, by_command_line: int) -> list[Case]:
    """As many runs of every configuration as of the others, as nearly as possible."""
    chosen = []
    for names, count in ((list(COMMAND_LINES), by_command_line), (list(SCENARIOS), runs - by_command_line)):
        chosen += [Case(names[index % len(names)], index // len(names)) for index in range(count)]
    return chosen


def run(case: Case, kills: list[Kill], folder: Path) -> int:
    """Run a case in this process's children; return how many kills came."""
    if case.by_command_line:
        return run_command_line(case.scenario, folder, kills)
    return run_with_kills(SCENARIOS[case.scenario], folder, kills)


def whole(name: str, directory: Path) -> Path:
    """The folder of the run of a configuration that nobody kills, made if it does not exist."""
    folder = directory / "whole" / name.replace(" ", "_").replace("/", "_")
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(Case(name, 0), [], folder)
        (folder / "done").touch()
    return folder


def result_of(case: Case, directory: Path) -> dict[str, Any]:
    """Run a case and compare it."""
    started, expected = time.monotonic(), whole(case.scenario, directory)
    places = 1 + max(note["place"] for note in notes_of(expected) if note["kind"] == "train")
    processes = 1 if case.by_command_line else SCENARIOS[case.scenario].processes
    kills = case.kills(places - 1, processes)
    folder, came = directory / "parts" / f"{expected.name}-{case.number}", 0
    shutil.rmtree(folder, ignore_errors=True)
    try:
        came = run(case, kills, folder)
        problems = differences(expected, folder)
    except Exception as error:  # whatever went wrong is a result
        problems = [f"{type(error).__name__}: {error}"]
    if not problems:
        shutil.rmtree(folder)  # the others can be looked at
    drawn = [asdict(kill) for kill in kills]
    return asdict(case) | {
        "kills": drawn, "came": came, "equal": not problems, "problems": problems[:3],
        "seconds": time.monotonic() - started,
    }  # fmt: skip


def results(path: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_all(chosen: list[Case], directory: Path, jobs: int) -> Iterator[dict[str, Any]]:
    """Run the cases that have no result yet, several at a time; yield results as they come."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "results.jsonl"
    done = {(one["scenario"], one["number"]) for one in results(path)}
    left = [case for case in chosen if (case.scenario, case.number) not in done]
    for name in dict.fromkeys(case.scenario for case in left):
        whole(name, directory)  # before two need it
    running: dict[int, None] = {}
    while left or running:
        while left and len(running) < jobs:
            running[start(left.pop(0), directory, path)] = None
        child, status = os.wait()
        running.pop(child, None)
        if status:
            raise RuntimeError(f"a process of the suite ended with status {status}")
        yield results(path)[-1]


def start(case: Case, directory: Path, path: Path) -> int:
    """Run a case in a process of its own, which appends its result; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        line = json.dumps(result_of(case, directory)) + "\n"
        with path.open("a") as file:
            file.write(line)
        code = 0
    finally:
        os._exit(code)


def table(found: list[dict[str, Any]]) -> str:
    """The results as a table in Markdown."""
    lines = ["| configuration | runs | kills | SIGKILL, SIGTERM | bit-equal |", "|---|---|---|---|---|"]
    rows = [*dict.fromkeys(one["scenario"] for one in found), None]
    for name in rows:
        mine = [one for one in found if name in (None, one["scenario"])]
        sent = [kill["number"] for one in mine for kill in one["kills"][: one["came"]]]
        kinds = f"{sent.count(signal.SIGKILL)}, {sent.count(signal.SIGTERM)}"
        equal = sum(one["equal"] for one in mine)
        words = "**all**" if name is None else name
        lines.append(f"| {words} | {len(mine)} | {len(sent)} | {kinds} | {equal} |")
    return "\n".join(lines)
