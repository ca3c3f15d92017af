"""Actions of the collapse detector."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.collapse.vitals import Vitals
from nrt_lightning.callbacks.run_folder import in_run_folder
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least

log = logging.getLogger(__name__)


class CollapseAction(ABC):
    """Base class of what a detector does at an alarm, in addition to its warning."""

    @abstractmethod
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Act, between two optimizer steps on every process, and return what was done for the warning."""

    def on_healthy(self, trainer: Trainer, pl_module: LightningModule, now: Vitals, past: list[Vitals]) -> None:
        """Called after a measurement without a sign of collapse; does nothing by default."""
        return None

    def on_start(self, trainer: Trainer) -> None:
        """Called when training starts, after `load_state_dict` in a resumed run; does nothing by default."""
        return None

    def reset(self) -> None:
        """Forget an earlier run; does nothing by default."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; nothing by default."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; does nothing by default."""
        return None


@dataclass(frozen=True)
class StopTraining(CollapseAction):
    """Ends training regularly, as after the last step."""

    @override
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        trainer.should_stop = True
        return "stopped training"


@dataclass(frozen=True)
class LowerLearningRate(CollapseAction):
    """Multiplies the learning rate by a factor for the rest of the run; the schedule continues.

    Args:
        factor: a number between 0 and 1, exclusive.

    Raises:
        InputError: `factor` is out of range.
    """

    factor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise InputError(f"LowerLearningRate.factor={self.factor} is out of range. Give a number between 0 and 1.")

    @override
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for name in ("lr", "initial_lr"):
                    if name in group:
                        group[name] = group[name] * self.factor
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler  # most schedules compute the rate from the initial one
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [rate * self.factor for rate in scheduler.base_lrs]
        return f"multiplied the learning rate by {self.factor:g}"


class RestoreCheckpoint(CollapseAction):
    """Restores weights and optimizer from the last healthy measurement.

    A measurement is healthy if it shows no sign of collapse and its gain is close to the best so far. Training
    continues with the next rows, because the same rows would lead to the same collapse. The learning rate is not
    restored; add `LowerLearningRate` to lower it.

    Args:
        directory: directory of the checkpoint `healthy-step=N.ckpt`, in the run's folder; null for the folder. The
            checkpoint contains the whole training state. Earlier ones are removed, except those that the run's two
            newest checkpoints refer to: a resumed run restores what the uninterrupted one would have.
        every_n_measurements: healthy measurements between two writes, for models with large checkpoints.
        keep: fraction of the best gain so far that a healthy measurement must reach.

    Raises:
        InputError: `every_n_measurements` is below 1.
    """

    def __init__(self, directory: str | None = None, every_n_measurements: int = 1, keep: float = 0.8) -> None:
        check_at_least("RestoreCheckpoint.every_n_measurements", every_n_measurements, 1)
        self.directory = directory
        self.every_n_measurements = every_n_measurements
        self.keep = keep
        self.reset()

    @override
    def reset(self) -> None:
        self.step: int | None = None  # optimizer step of the checkpoint, if this run has written it
        self.healthy = 0  # measurements
        self.files: list[int] = []  # steps of the checkpoints that this run has written and not removed
        self.referred: deque[int | None] = deque(maxlen=2)  # steps that the run's newest checkpoints refer to

    def path(self, trainer: Trainer, step: int | None = None) -> Path:
        """The checkpoint file of a step; of the newest by default."""
        name = f"healthy-step={self.step if step is None else step}.ckpt"
        return in_run_folder(self.directory or ".", trainer.default_root_dir) / name

    @override
    def on_start(self, trainer: Trainer) -> None:
        if self.step is not None and not self.path(trainer).exists():
            log.warning(
                "RestoreCheckpoint: %s is gone, which the resumed checkpoint refers to. Nothing can be restored until "
                "the next healthy measurement.", self.path(trainer),
            )  # fmt: skip
            self.step = None

    @override
    def state_dict(self) -> dict[str, Any]:
        self.referred.append(self.step)
        return {"step": self.step, "healthy": self.healthy, "files": list(self.files)}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.healthy, self.files = state["step"], state["healthy"], state["files"]
        self.referred = deque([self.step], maxlen=2)

    @override
    def on_healthy(self, trainer: Trainer, pl_module: LightningModule, now: Vitals, past: list[Vitals]) -> None:
        best = max((vitals.gain for vitals in past), default=0.0)
        if best > 0 and now.gain < self.keep * best:
            return
        if self.healthy % self.every_n_measurements == 0:
            referred = deque(self.referred, maxlen=2)  # not by the file that is written now
            trainer.save_checkpoint(self.path(trainer, now.step), weights_only=False)  # with the optimizer state
            self.step, self.referred = now.step, referred
            for step in [step for step in self.files if step not in (now.step, *referred)]:
                trainer.strategy.remove_checkpoint(self.path(trainer, step))
            self.files = [now.step, *(step for step in self.files if step in referred and step != now.step)]
        self.healthy += 1

    @override
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        if self.step is None:
            return "found no checkpoint of a healthy policy to restore"
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        strategy = trainer.strategy
        checkpoint = strategy.load_checkpoint(self.path(trainer), weights_only=True)
        strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
        strategy.load_optimizer_state_dict(checkpoint)
        for optimizer, old in zip(trainer.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, old, strict=True):
                group["lr"] = rate
        return f"restored weights and optimizer of step {self.step}"
