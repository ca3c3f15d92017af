"""Runs that are killed and resumed, and what each micro-batch did, to compare with a run that nobody killed.

A run is a child that is forked from the test's process, so it pays no imports. SIGKILL ends it in the middle of a hook.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from short_runs import nrt_module, registers

from nrt_lightning import ConstantSchedule
from nrt_lightning.cli.checkpoints import checkpoints_in, to_resume

MOMENTS = ("rollout", "forward", "backward", "optimizer", "batch_end", "saved", "validation", "validated", "epoch_end")


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
    """

    checkpoints: Callable[[Path], list[L.Callback]]
    steps: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    module: Callable[[], L.LightningModule] = lambda: nrt_module(schedule=ConstantSchedule(warmup=0))
    callbacks: Callable[[Path], list[L.Callback]] = lambda directory: []


def digest(value: Any) -> str:
    """A digest of tensors in any nesting."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(part.detach().cpu().contiguous().float().numpy().tobytes())
        elif isinstance(part, dict):
            for key in sorted(part, key=str):
                found.update(str(key).encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for item in part:
                add(item)
        else:
            found.update(repr(part).encode())

    add(value)
    return found.hexdigest()[:12]


class Notes(L.Callback):
    """Writes what every micro-batch and validation did into a file, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, trainer: Any, **values: Any) -> None:
        place = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "place": place, **values}) + "\n")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        timed = ("seconds", "memory", "per_second")
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if not any(t in k for t in timed)}
        metrics = {k: v for k, v in metrics.items() if not k.startswith("val/")}
        method = getattr(pl_module, "method", None)
        self.write(
            "train", trainer,
            rows=[row.id for row in batch.rows],
            rollouts=None if batch.rollouts is None else digest(batch.rollouts.completion_ids),
            weights=digest(dict(pl_module.policy.state_dict())),
            optimizer=digest(trainer.optimizers[0].state_dict()),
            filters=[f.state_dict() for f in method.filters] if method else [],
            reference=digest(method.reference.state_dict()) if method else "",
            step=trainer.global_step, epoch=trainer.current_epoch, batch=batch_idx, metrics=metrics,
        )  # fmt: skip

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            self.write("val", trainer, metrics=values, epoch=trainer.current_epoch)

    def on_train_epoch_end(self, trainer, pl_module):
        self.write("epoch", trainer, epoch=trainer.current_epoch)


class Killer(L.Callback):
    """Kills the process at a moment of a micro-batch (counted from 0, over all epochs)."""

    def __init__(self, moment: str, place: int, number: int = signal.SIGKILL) -> None:
        self.moment, self.place, self.number = moment, place, number

    def at(self, moment: str, trainer: Any, processed: int = 0) -> None:
        if (
            moment == self.moment
            and trainer.fit_loop.epoch_loop.batch_progress.total.processed - processed == self.place
        ):
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        self.at("rollout", trainer)

    def on_before_backward(self, trainer, *_):
        self.at("forward", trainer)

    def on_after_backward(self, trainer, *_):
        self.at("backward", trainer)

    def on_before_zero_grad(self, trainer, *_):
        self.at("optimizer", trainer)

    def on_train_batch_end(self, trainer, *_):
        self.at("batch_end", trainer, 1)

    def on_validation_start(self, trainer, *_):
        self.at("validation", trainer, 1)

    def on_validation_end(self, trainer, *_):
        self.at("validated", trainer, 1)

    def on_train_epoch_end(self, trainer, *_):
        self.at("epoch_end", trainer, 1)

    def setup(self, trainer, pl_module, stage):
        if self.moment == "saved":  # right after the next save
            save = trainer.strategy.save_checkpoint

            def saved(*args, **settings):
                save(*args, **settings)
                self.at("saved", trainer, 1)

            trainer.strategy.save_checkpoint = saved


def fit(scenario: Scenario, directory: Path, kill: tuple[Any, ...] | None, ckpt_path: str | None) -> None:
    """Run a scenario in this process."""
    L.seed_everything(7, verbose=False)
    killer = [] if kill is None else [Killer(*kill)]
    defaults = {
        "accelerator": "cpu", "devices": 1, "max_epochs": -1 if scenario.steps else 3, "logger": False,
        "max_steps": scenario.steps or -1, "default_root_dir": directory, "enable_progress_bar": False,
        "enable_model_summary": False, "num_sanity_val_steps": 0, "limit_val_batches": 1,
    }  # fmt: skip
    callbacks = [*scenario.callbacks(directory), Notes(directory / "notes.jsonl"), *killer]
    trainer = L.Trainer(
        callbacks=[*callbacks, *scenario.checkpoints(directory / "checkpoints")], **defaults | scenario.trainer
    )
    trainer.fit(scenario.module(), registers(**scenario.data), ckpt_path=ckpt_path)


def in_child(run: Callable[[], None], log: Path) -> int:
    """Run a function in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)  # not what pytest captures
            torch.set_num_threads(1)
            run()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def newest(directory: Path) -> str | None:
    """The checkpoint that a run is resumed from."""
    found = to_resume(checkpoints_in([directory / "checkpoints"], None))
    return str(found[0].path) if found else None


def run_with_kills(scenario: Scenario, directory: Path, kills: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Run a scenario, killed at each moment and resumed from its newest checkpoint; return the notes of all parts.

    Raises:
        AssertionError: a part failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log.txt"
    for kill in [*kills, None]:
        ckpt_path = newest(directory)
        code = in_child(lambda kill=kill, path=ckpt_path: fit(scenario, directory, kill, path), log)
        number = None if kill is None else dict(enumerate(kill)).get(2, signal.SIGKILL)  # others are handled
        expected = 0 if number is None else -number if number == signal.SIGKILL else 128 + number
        assert code == expected, f"{kill}: exit code {code}, resumed {ckpt_path}\n" + log.read_text()[-3000:]
    return [json.loads(line) for line in (directory / "notes.jsonl").read_text().splitlines()]


def differences(whole: list[dict[str, Any]], parts: list[dict[str, Any]]) -> list[str]:
    """What differs from the run that nobody killed: notes that it did not make, or that are missing."""
    expected = {(note["kind"], note["place"]): note for note in whole}
    found, problems = set(), []
    for note in parts:
        key = note["kind"], note["place"]
        found.add(key)
        if key not in expected:
            problems.append(f"{key} is not in the whole run")
        elif note != expected[key]:
            names = [name for name in note if note[name] != expected[key][name]]
            problems.append(f"{key} differs in {names}: {[(note[n], expected[key][n]) for n in names[:2]]}")
    return problems + [f"{key} is missing" for key in expected if key not in found]
