"""Runs that are killed and resumed, and what each micro-batch did, to compare with a run that nobody killed.

A run is a child that is forked from a process that has paid the imports. A signal ends it in the middle of a hook, or a
random time after.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from faults.watching import Killer, Notes
from short_runs import nrt_module, registers

from nrt_lightning import ConstantSchedule
from nrt_lightning.cli.checkpoints import checkpoints_in, from_undamaged, to_resume

NOISY = ("seconds", "memory", "per_second")  # in names of metrics that no two runs share


def plain_module() -> L.LightningModule:
    """The quickstart's method, short."""
    return nrt_module(schedule=ConstantSchedule(warmup=0))


@dataclass
class Scenario:
    """A configuration.

    Args:
        checkpoints: makes the checkpoint callbacks for a directory.
        steps: optimizer steps of the whole run; None: `max_epochs` of the trainer ends it.
        data: settings of the data.
        trainer: settings of the trainer.
        module: makes the module.
        callbacks: makes further callbacks, for a directory.
        logger: makes the logger, for a directory.
        strategy: makes the strategy of several processes.
        processes: that train together.
    """

    checkpoints: Callable[[Path], list[L.Callback]] = lambda directory: []
    steps: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    module: Callable[[], L.LightningModule] = plain_module
    callbacks: Callable[[Path], list[L.Callback]] = lambda directory: []
    logger: Callable[[Path], Any] = lambda directory: False
    strategy: Callable[[], Any] = lambda: "auto"
    processes: int = 1


@dataclass
class Kill:
    """When a process ends: a moment of a micro-batch, counted from 0 over all epochs, and perhaps a time after.

    `saving` ends it in the middle of a save: `delay` is then the number of calls of the file system before.
    """

    moment: str
    place: int
    number: int = signal.SIGKILL
    delay: float = 0.0
    rank: int = 0
    sure: bool = True  # False: the first such moment from there on, and the run may end before

    @property
    def expected(self) -> set[int]:
        """Exit codes: of the signal, of a handler, of a run that had ended before."""
        killed = {-self.number} if self.number == signal.SIGKILL else {128 + self.number}
        return killed if self.sure else killed | {0, -self.number}


def fit(scenario: Scenario, directory: Path, kill: Kill | None, ckpt_path: str | None) -> None:
    """Run a scenario in this process."""
    L.seed_everything(7, verbose=False)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    notes = Notes(directory / f"notes{rank or ''}.jsonl")
    killer = [Killer(kill)] if kill is not None and kill.rank == rank else []
    defaults = {
        "accelerator": "cpu", "devices": scenario.processes, "max_epochs": -1 if scenario.steps else 3,
        "logger": scenario.logger(directory), "max_steps": scenario.steps or -1, "default_root_dir": directory,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "limit_val_batches": 1,
        "strategy": scenario.strategy(),
    }  # fmt: skip
    trainer = L.Trainer(
        callbacks=[*scenario.callbacks(directory), notes, *killer, *scenario.checkpoints(directory / "checkpoints")],
        **defaults | scenario.trainer,
    )
    trainer.fit(scenario.module(), registers(**scenario.data), ckpt_path=ckpt_path)


def forked(run: Callable[[], None], log: Path, environment: dict[str, str]) -> int:
    """Run a function in a forked process; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = os.fdopen(os.dup(1), "w", buffering=1)  # not what pytest captures
        torch.set_num_threads(1)
        run()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def in_children(run: Callable[[], None], log: Path, processes: int) -> int:
    """Run a function in forked processes that train together; return an exit code, negative for a signal.

    Where a signal has ended one, the others are killed, as a scheduler does; they may take a minute to end otherwise.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": str(processes)}
    ranks = [together | {"LOCAL_RANK": str(rank)} if processes > 1 else {} for rank in range(processes)]
    running = {forked(run, log, environment) for environment in ranks}
    codes, last = [], float("inf")
    while running:
        for child in sorted(running):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                running.remove(child)
                codes.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
                last = time.monotonic() + (0 if codes[-1] < 0 else 60)
        if time.monotonic() > last:
            for child in running:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            break
        time.sleep(0.01)
    return min(codes) if min(codes) < 0 else max(codes)


def newest(directory: Path) -> str | None:
    """The checkpoint that a run is resumed from."""
    found = from_undamaged(to_resume(checkpoints_in([directory / "checkpoints", directory / "csv"], None)))
    return str(found[0].path) if found else None


def run_with_kills(scenario: Scenario, directory: Path, kills: list[Kill]) -> int:
    """Run a scenario, killed at each moment and resumed from its newest checkpoint; return how many kills came.

    Raises:
        AssertionError: a part failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log, came = directory / "log.txt", 0
    for kill in [*kills, None]:
        whole_lines(directory)
        path = newest(directory)
        code = in_children(lambda kill=kill, path=path: fit(scenario, directory, kill, path), log, scenario.processes)
        expected = {0} if kill is None else kill.expected
        assert code in expected, f"{kill}: exit code {code}, resumed {path}\n" + log.read_text()[-3000:]
        if code == 0:
            break  # the run had ended before
        came += 1
    return came


def whole_lines(directory: Path) -> None:
    """Cut a line of the notes that a kill has left half written."""
    for path in directory.glob("notes*.jsonl"):
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            path.write_bytes(data[: data.rfind(b"\n") + 1])


def notes_of(directory: Path, name: str = "notes.jsonl") -> list[dict[str, Any]]:
    """The notes of all parts of a run."""
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def differences(whole: Path, parts: Path) -> list[str]:
    """What differs between the folders of a run that nobody killed and of one that was killed."""
    problems = differing(notes_of(whole), notes_of(parts))
    for path in whole.glob("notes?.jsonl"):  # of another process, which may be killed before it has noted what is saved
        theirs = differing(notes_of(whole, path.name), notes_of(parts, path.name))
        problems += [f"{path.name}: {problem}" for problem in theirs if not problem.endswith("is missing")]
    for path in whole.rglob("metrics.csv"):
        if rows_of(path) != rows_of(parts / path.relative_to(whole)):
            problems.append(f"{path.name} has other rows")
    return problems


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSVLogger without times and memory; those of one step may be in several rows."""
    with path.open() as file:
        rows = [{k: v for k, v in row.items() if v and not any(t in k for t in NOISY)} for row in csv.DictReader(file)]
    return [row for row in rows if set(row) - {"step", "epoch"}]


def differing(whole: list[dict[str, Any]], parts: list[dict[str, Any]]) -> list[str]:
    """Notes that the run that nobody killed did not make, or that are missing."""
    expected = {(note["kind"], note["place"]): note for note in whole}
    found, problems = set(), []
    for note in parts:
        key = note["kind"], note["place"]
        found.add(key)
        if key not in expected:
            problems.append(f"{key} is not in the whole run")
        elif note != expected[key]:
            names = [name for name in note if note[name] != expected[key].get(name)]
            problems.append(f"{key} differs in {names}: {[(note[n], expected[key].get(n)) for n in names[:2]]}")
    return problems + [f"{key} is missing" for key in expected if key not in found]
