"""Finds runs in folders and reads what they left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.tools.report.history import History, read_history
from nrt_lightning.tools.report.lines import FORMAT, hindrance, number, read_lines, read_object, text

MOST = 12  # runs in a page: more colors cannot be told apart
FILES = ("metrics.jsonl", "metrics.csv", "samples.jsonl", "self_assessment.jsonl")
DEEPEST = 6  # folders below the given one
NAMED = 5  # runs in a note about those that are left out
LONGEST = 80  # characters of a name
LOGS = ("metrics.jsonl", "metrics.csv", "events.out.tfevents.")


@dataclass
class Run:
    """What a run left."""

    name: str
    folder: Path
    history: History
    facts: dict[str, Any] = field(default_factory=dict)  # of run.json: module, settings, environment, started
    samples: list[dict[str, Any]] = field(default_factory=list)  # lines of samples.jsonl
    looks: list[dict[str, Any]] = field(default_factory=list)  # lines of self_assessment.jsonl
    results: dict[str, float] = field(default_factory=dict)  # test figures by name
    notes: list[str] = field(default_factory=list)  # what could not be read, for the reader


def find_runs(folders: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """Read the runs in some folders.

    Args:
        folders: each a run's folder, a log directory, or a folder with several runs.

    Returns:
        The runs, and a line for each folder that is left out.

    Raises:
        InputError: a folder is missing or holds no log of a run.
    """
    roots: dict[Path, Path] = {}  # by folder with logs, in the order of the page
    notes: list[str] = []
    for given in folders:
        root = Path(os.path.expanduser(given))
        if not root.is_dir():
            raise InputError(f"report: {str(given)!r} is not a folder. Give the folder of a run: default_root_dir.")
        logs = log_folders(root, notes)
        if not logs:
            unread = f" ({notes[-1]})" if notes else ""
            raise nothing_in(
                given, "it has no metrics.jsonl, metrics.csv or TensorBoard events" + other_logs(root) + unread
            )
        for folder in logs:
            roots.setdefault(folder.resolve(), root)
    read: dict[Path, Run] = {}
    newest = sorted(roots, key=last_written, reverse=True)
    empty = []
    while newest and len(read) < MOST:
        folder = newest.pop(0)
        run = read_run(folder, roots[folder])
        if run is None:
            empty.append(f"{folder} has no figures{why_empty(folder)}")
        else:
            read[folder] = run
    for given in folders:
        inside = [folder for folder, root in roots.items() if root == Path(os.path.expanduser(given))]
        if inside and not read.keys() & inside and not set(newest) & set(inside):
            named = ", ".join(sorted({folder.name for folder in inside})[:NAMED])
            raise nothing_in(given, f"its {named} hold no figures{why_empty(inside[0])}")
    runs = [read[folder] for folder in roots if folder in read]
    name_apart(runs)
    return runs, [*notes, *several(empty, "folders"), *left_out(newest, roots)]


def nothing_in(given: str | Path, why: str) -> InputError:
    """An error about a folder without runs."""
    return InputError(
        f"report: {str(given)!r} holds no log of a run: {why}. Give trainer.default_root_dir of a run that has logged "
        "at least one step."
    )


def why_empty(folder: Path) -> str:
    """Why the logs of a folder hold no figures, where they cannot be read."""
    reasons = [
        f"{file.name} {reason}" for file in folder.iterdir() if is_log(file.name) and (reason := hindrance(file))
    ]
    return f": {', '.join(reasons[:NAMED])}" if reasons else ""


def several(notes: list[str], what: str) -> list[str]:
    """A few notes of a kind, and how many more there are."""
    return [*notes[:NAMED], *([f"{len(notes) - NAMED:,} more {what} like it"] if len(notes) > NAMED else [])]


def left_out(newest: Sequence[Path], roots: dict[Path, Path]) -> list[str]:
    """A note about runs for which there is no room, by their folders; the newest come first."""
    if not newest:
        return []
    names = [os.path.relpath(folder, roots[folder].resolve()) for folder in newest[:NAMED]]
    more = f" and {len(newest) - NAMED:,} more" if len(newest) > NAMED else ""
    return [f"{len(newest):,} of {len(newest) + MOST:,} runs are left out, the oldest: {', '.join(names)}{more}"]


def log_folders(root: Path, notes: list[str]) -> list[Path]:
    """The folders with logs, oldest run first, without checkpoints and exported models.

    Args:
        root: folder that is searched.
        notes: gets those folders that cannot be read.
    """
    folders: list[tuple[float, Path]] = []
    unread: list[OSError] = []
    for path, names, files in os.walk(root, onerror=unread.append):
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "checkpoints")
        if len(Path(path).relative_to(root).parts) >= DEEPEST:
            names.clear()
        if any(is_log(file) for file in files):
            folders.append((last_written(Path(path)), Path(path)))
    notes += several([f"{error.filename} cannot be read ({error.strerror})" for error in unread], "folders")
    return [folder for _, folder in sorted(folders)]


def other_logs(root: Path) -> str:
    """A remark on logs that only their own program reads."""
    wandb = (root / "wandb").is_dir() or any(root.glob("*.wandb"))
    return ", and the files of Weights & Biases are for its own program" if wandb else ""


def is_log(file: str) -> bool:
    """True for the name of a file with curves."""
    return file in LOGS[:2] or file.startswith(LOGS[2])


def last_written(folder: Path) -> float:
    """When the first of a run's logs was written last."""
    times = []
    for path in folder.iterdir():
        if is_log(path.name):
            with suppress(OSError):  # a link to nowhere
                times.append(path.stat().st_mtime)
    return min(times, default=0.0)


def read_run(folder: Path, root: Path) -> Run | None:
    """Read a run; None if its log holds no figures."""
    history = read_history(folder)
    if history is None or not history.series:
        return None
    facts = read_object(folder / "run.json")
    name = " ".join(text((facts or {}).get("name")).split())[:LONGEST] or folder.name
    run = Run(name, folder, history, facts or {})
    run.samples, bad_samples = read_lines(folder / "samples.jsonl")
    run.looks, bad_looks = read_lines(folder / "self_assessment.jsonl")
    run.results = test_figures(run, root)
    for file, count in ((history.source, history.unread), ("samples.jsonl", bad_samples),
                        ("self_assessment.jsonl", bad_looks)):  # fmt: skip
        if count:
            run.notes.append(f"{count} {'lines' if count > 1 else 'line'} of {file} could not be read and left out")
    if history.unusable:
        plural = "values" if history.unusable > 1 else "value"
        run.notes.append(f"{history.unusable:,} {plural} of {history.source} left out: no finite numbers below 1e100")
    run.notes += [f"{name} {reason}, and is left out" for name in FILES if (reason := hindrance(folder / name))]
    if history.source != "metrics.jsonl":
        run.notes.append(
            f"the curves are from {history.source}, whose steps may count something else: there is no metrics.jsonl"
        )
    if facts is None:
        damaged = "is damaged" if os.path.lexists(folder / "run.json") else "is missing"
        run.notes.append(
            f"run.json {hindrance(folder / 'run.json') or damaged}, so settings and environment are not known"
        )
    elif facts.get("format") != FORMAT:
        run.notes.append(f"run.json has the format {repr(facts.get('format'))[:40]}; this version reads {FORMAT}")
    return run


def test_figures(run: Run, root: Path) -> dict[str, float]:
    """The test figures of a run: those it logged and, by its name, those of the `results.json` nearest above."""
    figures = {name.removeprefix("test/"): curve[-1][1] for name in run.history.series
               if name.startswith("test/") and (curve := run.history.curve(name))}  # fmt: skip
    for folder in [run.folder, *run.folder.parents]:
        found = (read_object(folder / "results.json") or {}).get(run.name)
        if isinstance(found, dict):
            return figures | {name: real for name, value in found.items() if (real := number(value)) is not None}
        if folder == root:
            break
    return figures


def name_apart(runs: list[Run]) -> None:
    """Give runs of the same name the names of the folders above in addition."""
    for depth in range(1, DEEPEST + 1):
        names = [run.name for run in runs]
        for run in runs:
            parts = run.folder.resolve().parts
            if names.count(run.name) > 1 and len(parts) > depth + 1:
                run.name = f"{parts[-1 - depth]}/{run.name}"
    for number_, run in enumerate(runs):
        if [other.name for other in runs].count(run.name) > 1:
            run.name = f"{run.name} {number_ + 1}"
