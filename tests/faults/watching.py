"""Callbacks that note what a run did, and that end it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch

MOMENTS = (
    "rollout", "forward", "backward", "optimizer", "batch_end", "saving", "saved", "validation", "validated",
    "epoch_end",
)  # fmt: skip
TIMED = ("seconds", "memory", "per_second")


def digest(value: Any) -> str:
    """A digest of tensors in any nesting."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            part = getattr(part, "_local_tensor", part)
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


def optimizer_state(optimizer: Any, pl_module: Any) -> list[Any]:
    """The learning rates, and the state of every weight."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return [rates, *(optimizer.state[weight] for weight in pl_module.parameters() if weight in optimizer.state)]


class Notes(L.Callback):
    """Writes what every micro-batch and validation did into a file, line by line."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, kind: str, trainer: Any, **values: Any) -> None:
        place = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "place": place, **values}) + "\n")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if not any(t in k for t in TIMED)}
        metrics = {k: v for k, v in metrics.items() if not k.startswith("val/")}
        method = getattr(pl_module, "method", None)
        self.write(
            "train", trainer,
            rows=[row.id for row in batch.rows],
            rollouts=None if batch.rollouts is None else digest(batch.rollouts.completion_ids),
            weights=digest(dict(pl_module.policy.named_parameters())),
            optimizer=digest([optimizer_state(trainer.optimizers[0], pl_module)]),
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
    """Ends the process at a moment of a micro-batch, or some time after.

    Args:
        kill: as `faults.killed_runs.Kill`; by its fields for the command line.
    """

    def __init__(
        self, kill: Any = None, moment: str = "", place: int = 0, number: int = 9, delay: float = 0.0, sure: bool = True
    ) -> None:
        if kill is not None:
            moment, place, number, delay, sure = kill.moment, kill.place, kill.number, kill.delay, kill.sure
        self.moment, self.place, self.number, self.delay, self.sure = moment, place, number, delay, sure

    def at(self, moment: str, trainer: Any, processed: int = 0) -> None:
        if moment == self.moment and self.here(trainer, processed):
            self.kill()

    def here(self, trainer: Any, processed: int = 0) -> bool:
        """True at the micro-batch that is meant; for random kills, from there on."""
        place = trainer.fit_loop.epoch_loop.batch_progress.total.processed - processed
        return place == self.place or (not self.sure and place > self.place)

    def kill(self) -> None:
        """Send the signal, now or after the delay."""
        self.moment = ""  # once
        if self.delay:
            timer = threading.Timer(self.delay, os.kill, (os.getpid(), self.number))
            timer.daemon = True
            timer.start()
        else:
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        self.at("rollout", trainer)

    def on_before_backward(self, trainer, *_):
        self.at("forward", trainer)

    def on_after_backward(self, trainer, *_):
        self.at("backward", trainer)

    def on_before_optimizer_step(self, trainer, *_):
        self.at("optimizer", trainer)

    def on_train_batch_end(self, trainer, *_):
        self.at("batch_end", trainer, 1)

    def on_validation_start(self, trainer, *_):
        self.at("validation", trainer, 1)

    def on_validation_end(self, trainer, *_):
        self.at("validated", trainer, 1)

    def on_train_epoch_end(self, trainer, *_):
        self.at("epoch_end", trainer, 1)

    def on_fit_start(self, trainer, pl_module):
        if self.moment not in ("saving", "saved"):
            return
        save = trainer.strategy.save_checkpoint

        def saved(*args, **settings):
            if self.moment == "saving" and trainer.fit_loop.epoch_loop.batch_progress.total.processed > self.place:
                self.moment = ""
                with killing_call(int(self.delay), self.number) as calls:
                    save(*args, **settings)
                if calls.left >= 0:  # there were fewer
                    os.kill(os.getpid(), self.number)
                return
            save(*args, **settings)
            after = trainer.fit_loop.epoch_loop.batch_progress.total.processed > self.place
            if self.moment == "saved" and after:  # the next save
                self.kill()

        trainer.strategy.save_checkpoint = saved


class killing_call:
    """Ends the process at one of the calls that write names and bytes to the disk."""

    NAMES = ("fsync", "replace", "link")

    def __init__(self, before: int, number: int) -> None:
        self.left, self.number = before, number
        self.calls = {name: getattr(os, name) for name in self.NAMES}

    def __enter__(self) -> killing_call:
        for name, call in self.calls.items():
            setattr(os, name, lambda *args, call=call, **settings: self.count(call, *args, **settings))
        return self

    def count(self, call: Any, *args: Any, **settings: Any) -> Any:
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        self.left -= 1
        return call(*args, **settings)

    def __exit__(self, *error: object) -> None:
        for name, call in self.calls.items():
            setattr(os, name, call)
