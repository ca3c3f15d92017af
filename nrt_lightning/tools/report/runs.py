"""Finds runs in folders and reads what they left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.tools.report.history import History, read_history
from nrt_lightning.tools.report.lines import FORMAT, number, read_lines, read_object, text

MOST = 12  # runs in a page: more colors cannot be told apart
DEEPEST = 6  # folders below the given one
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
    found: dict[Path, Run] = {}
    notes = []
    for given in folders:
        root = Path(given).expanduser()
        if not root.is_dir():
            raise InputError(f"report: {str(given)!r} is not a folder. Give the folder of a run: default_root_dir.")
        logs = log_folders(root)
        read = [run for run in (read_run(folder, root) for folder in logs) if run is not None]
        if not read:
            empty = f"its {', '.join(sorted({folder.name for folder in logs}))} hold no figures" if logs else (
                "it has no metrics.jsonl, metrics.csv or TensorBoard events" + other_logs(root)
            )  # fmt: skip
            raise InputError(
                f"report: {str(given)!r} holds no log of a run: {empty}. Give trainer.default_root_dir of a run that "
                "has logged at least one step."
            )
        notes += [f"{folder} has no figures" for folder in logs if folder not in {run.folder for run in read}]
        found |= {run.folder.resolve(): run for run in read}
    runs = list(found.values())
    name_apart(runs)
    oldest = sorted(runs, key=lambda run: last_written(run.folder))[: max(0, len(runs) - MOST)]
    if oldest:
        names = ", ".join(run.name for run in oldest)
        notes.append(f"{len(oldest)} of {len(runs)} runs are left out, the oldest: {names}")
    dropped = {id(run) for run in oldest}
    return [run for run in runs if id(run) not in dropped], notes


def log_folders(root: Path) -> list[Path]:
    """The folders with logs, oldest run first, without checkpoints and exported models."""
    folders: list[tuple[float, Path]] = []
    for path, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "checkpoints")
        if len(Path(path).relative_to(root).parts) >= DEEPEST:
            names.clear()
        if any(is_log(file) for file in files):
            folders.append((last_written(Path(path)), Path(path)))
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
    return min((path.stat().st_mtime for path in folder.iterdir() if is_log(path.name)), default=0.0)


def read_run(folder: Path, root: Path) -> Run | None:
    """Read a run; None if its log holds no figures."""
    history = read_history(folder)
    if history is None or not history.series:
        return None
    facts = read_object(folder / "run.json")
    name = text((facts or {}).get("name")) or folder.name
    run = Run(name, folder, history, facts or {})
    run.samples, bad_samples = read_lines(folder / "samples.jsonl")
    run.looks, bad_looks = read_lines(folder / "self_assessment.jsonl")
    run.results = test_figures(run, root)
    for file, count in ((history.source, history.unread), ("samples.jsonl", bad_samples),
                        ("self_assessment.jsonl", bad_looks)):  # fmt: skip
        if count:
            run.notes.append(f"{count} {'lines' if count > 1 else 'line'} of {file} could not be read and left out")
    if history.source != "metrics.jsonl":
        run.notes.append(
            f"the curves are from {history.source}, whose steps may count something else: there is no metrics.jsonl"
        )
    if facts is None:
        damaged = "is damaged" if (folder / "run.json").exists() else "is missing"
        run.notes.append(f"run.json {damaged}, so settings and environment are not known")
    elif facts.get("format") != FORMAT:
        run.notes.append(f"run.json has the format {facts.get('format')!r}; this version reads {FORMAT}")
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
