"""Actions of the collapse detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.collapse.vitals import Vitals
from nrt_lightning.callbacks.run_folder import in_run_folder
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least


class CollapseAction(ABC):
    """Base class of what a detector does at an alarm, in addition to its warning."""

    @abstractmethod
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Act, between two optimizer steps on every process, and return what was done for the warning."""

    def on_healthy(self, trainer: Trainer, pl_module: LightningModule, now: Vitals, past: list[Vitals]) -> None:
        """Called after a measurement without a sign of collapse; does nothing by default."""
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
        directory: directory of the checkpoint `healthy.ckpt`, in the run's folder; null for the folder. The checkpoint
            contains the whole training state and is overwritten at healthy measurements. A resumed run ignores it
            until it has written it.
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
        self.step: int | None = None  # optimizer step of the checkpoint, if this run has written it
        self.healthy = 0  # measurements

    def path(self, trainer: Trainer) -> Path:
        """The checkpoint file."""
        return in_run_folder(self.directory or ".", trainer.default_root_dir) / "healthy.ckpt"

    @override
    def on_healthy(self, trainer: Trainer, pl_module: LightningModule, now: Vitals, past: list[Vitals]) -> None:
        best = max((vitals.gain for vitals in past), default=0.0)
        if best > 0 and now.gain < self.keep * best:
            return
        if self.healthy % self.every_n_measurements == 0:
            trainer.save_checkpoint(self.path(trainer), weights_only=False)  # with the optimizer state
            self.step = now.step
        self.healthy += 1

    @override
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        if self.step is None:
            return "found no checkpoint of a healthy policy to restore"
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        strategy = trainer.strategy
        checkpoint = strategy.load_checkpoint(self.path(trainer), weights_only=False)  # trusted: written by this run
        strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
        strategy.load_optimizer_state_dict(checkpoint)
        for optimizer, old in zip(trainer.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, old, strict=True):
                group["lr"] = rate
        return f"restored weights and optimizer of step {self.step}"
