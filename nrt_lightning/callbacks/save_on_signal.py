"""A run that is told to end by a signal ends its window, saves, and exits."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.strategies.checkpoints import remote

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()))
NAME = "interrupted.ckpt"


class SaveOnSignal(Callback):
    """Ends a run at SIGTERM, SIGUSR1 or Ctrl-C so that it can be resumed exactly.

    The rollout window is finished, a checkpoint is saved, and the process exits with 128 + the number of the signal.
    A run that is validating saves at the next batch. If the window takes longer than `grace_seconds`, the process exits
    without saving, and names the last checkpoint. So does a second signal.

    The checkpoint is `last.ckpt` if a `ModelCheckpoint` has `save_last`, otherwise `interrupted.ckpt` beside the rest.
    Where Lightning requeues a SLURM job, its handlers stay. The modules of this package and `OnPolicyRollout` add this
    callback.

    Args:
        grace_seconds: how long the run may go on after a signal.

    Raises:
        InputError: `grace_seconds` is negative.
    """

    def __init__(self, grace_seconds: float = 30.0) -> None:
        check_at_least("SaveOnSignal.grace_seconds", grace_seconds, 0)
        self.grace_seconds = grace_seconds
        self.received: int | None = None
        self.timer: threading.Timer | None = None
        self.before: dict[int, Any] = {}  # handlers
        self.saved = ""  # path of the checkpoint of this callback

    @override
    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        trainer.callbacks = [*(c for c in trainer.callbacks if c is not self), self]  # after those that save
        environment = trainer._accelerator_connector.cluster_environment
        requeues = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        if requeues or threading.current_thread() is not threading.main_thread():
            return
        self.received = None

        def handle(number: int, frame: Any) -> None:
            self.handle(trainer, number)

        self.before = {number: signal.signal(number, handle) for number in SIGNALS}

    def handle(self, trainer: Any, number: int) -> None:
        """Note a signal; at the second, leave."""
        name = signal.Signals(number).name
        if self.received is not None:
            self.leave(trainer, f"{name} came again")
        self.received = number
        say(f"{name}: the run ends after this window, within {self.grace_seconds:g} seconds, and saves a checkpoint.")
        late = f"the window has not ended within {self.grace_seconds:g} seconds"
        self.timer = threading.Timer(self.grace_seconds, self.leave, (trainer, late))
        self.timer.daemon = True
        self.timer.start()

    def leave(self, trainer: Any, why: str) -> None:
        """Exit at once."""
        last = last_checkpoint(trainer) or self.saved
        say(f"{why}: exiting without saving. The last checkpoint is {last}." if last else f"{why}: nothing is saved.")
        sys.stdout.flush()
        os._exit(128 + int(self.received or signal.SIGTERM))

    def end(self, trainer: Any) -> None:
        """Save and exit, if any process has received a signal. All processes call it together."""
        received = self.received is not None
        if trainer.world_size > 1:
            received = trainer.strategy.reduce_boolean_decision(received, all=False)
        if not received:
            return
        if self.timer is not None:
            self.timer.cancel()
        self.save(trainer)
        number = int(self.received or signal.SIGTERM)
        where = f"{self.saved} is saved" if self.saved else "nothing is saved, because there is no ModelCheckpoint"
        if trainer.is_global_zero:
            say(f"{signal.Signals(number).name}: {where} (step {trainer.global_step}).")
        self.restore()
        raise SystemExit(128 + number)

    def save(self, trainer: Any) -> None:
        """Write the last checkpoint, unless this state is saved."""
        found = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        for callback in sorted(found, key=lambda one: not one.save_last)[:1]:
            if not callback.save_last or callback.save_last == "link":
                where = str(callback.dirpath)
                self.saved = f"{where}/{NAME}" if remote(where) else str(Path(where, NAME))
                trainer.save_checkpoint(self.saved)
                return
            last, step = callback._last_checkpoint_saved, callback._last_global_step_saved
            if (last, step) != (callback.last_model_path, trainer.global_step):
                callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))
            self.saved = callback.last_model_path

    def restore(self) -> None:
        """Give the signals their handlers of before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    # Moments at which a run can be resumed exactly

    @override
    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.end_between_windows(trainer)

    @override
    def on_validation_batch_end(self, trainer: Any, *args: Any, **settings: Any) -> None:
        self.end_between_windows(trainer)

    @override
    def on_validation_end(self, trainer: Any, pl_module: LightningModule) -> None:
        self.end_between_windows(trainer)

    @override
    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        self.end_between_windows(trainer)

    def end_between_windows(self, trainer: Any) -> None:
        """End if a run that is resumed from here is exact."""
        waits = any(c.must_wait(trainer) for c in trainer.callbacks if hasattr(c, "must_wait"))
        if self.before and not trainer.sanity_checking and not waits:
            self.end(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()
        if "DataLoader worker" in str(exception) and "exited unexpectedly" in str(exception):
            workers = getattr(getattr(trainer, "datamodule", None), "num_workers", "the dataloader's")
            log.error(
                "A worker process of the data was killed, perhaps because memory ran out: data.num_workers is %s. "
                "Lower it (0 needs no process), and resume the last checkpoint%s.", workers,
                f", {last}" if (last := last_checkpoint(trainer)) else "",
            )  # fmt: skip

    def close(self) -> None:
        """Stop waiting for signals."""
        if self.timer is not None:
            self.timer.cancel()
        self.restore()


def last_checkpoint(trainer: Any) -> str:
    """The newest checkpoint that the callbacks of a trainer have saved; empty if there is none."""
    found = [c for c in trainer.checkpoint_callbacks if getattr(c, "_last_checkpoint_saved", "")]
    newest = max(found, key=lambda one: one._last_global_step_saved, default=None)
    return str(newest._last_checkpoint_saved) if newest is not None else ""


def say(text: str) -> None:
    """Print a line now, in a signal handler too."""
    print(text, file=sys.stderr, flush=True)
