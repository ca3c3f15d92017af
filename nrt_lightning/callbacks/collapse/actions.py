"""What to do when a policy has collapsed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from nrt_lightning.callbacks.collapse.vitals import Vitals
from nrt_lightning.errors import InputError


class CollapseAction(ABC):
    """What a detector does at an alarm, beside the warning it always gives."""

    @abstractmethod
    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Act, between two optimizer steps on every process; say what was done, for the warning."""

    def on_well(self, trainer: Trainer, pl_module: LightningModule, now: Vitals, past: list[Vitals]) -> None:
        """Take note of a policy that shows no sign of collapse; most actions need not."""
        return None


@dataclass(frozen=True)
class StopTraining(CollapseAction):
    """Ends the run, as reaching its last step would."""

    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """See `CollapseAction`."""
        trainer.should_stop = True
        return "training stops"


@dataclass(frozen=True)
class LowerLearningRate(CollapseAction):
    """Multiplies the learning rate by a factor from here on, under whatever schedule.

    Args:
        factor: above 0 and below 1.

    Raises:
        InputError: another factor.
    """

    factor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise InputError(f"LowerLearningRate: factor is {self.factor}; give a number between 0 and 1.")

    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """See `CollapseAction`."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for name in ("lr", "initial_lr"):
                    if name in group:
                        group[name] = group[name] * self.factor
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler  # most compute the rate from the one they began with
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [rate * self.factor for rate in scheduler.base_lrs]
        return f"the learning rate is {self.factor:g} times what it was"


class RestoreCheckpoint(CollapseAction):
    """Gives weights and optimizer their state at the last look when the policy was well.

    A look is well when it shows no sign of collapse and traces gain most of what they ever did. The run goes on with
    the rows that are next: the same rows again would lead to the same collapse. The learning rate stays what it is;
    with `LowerLearningRate` beside it, it is lower.

    Args:
        directory: where the one checkpoint is kept, `well.ckpt`; null for the trainer's `default_root_dir`. It holds
            the whole training state, and is written anew at well looks. A resumed run begins without one.
        every_n_looks: well looks between two writes, for models whose checkpoints are large.
        keep: share of the best gain so far that a look must show to be well.

    Raises:
        InputError: `every_n_looks` is below 1.
    """

    def __init__(self, directory: str | None = None, every_n_looks: int = 1, keep: float = 0.8) -> None:
        if every_n_looks < 1:
            raise InputError(f"RestoreCheckpoint: every_n_looks is {every_n_looks}; give 1 or more.")
        self.directory = directory
        self.every_n_looks = every_n_looks
        self.keep = keep
        self.step: int | None = None  # when the checkpoint was written, by this run
        self.well_looks = 0

    def path(self, trainer: Trainer) -> Path:
        """The checkpoint's file."""
        return Path(self.directory or trainer.default_root_dir).expanduser() / "well.ckpt"

    def on_well(self, trainer: Trainer, pl_module: LightningModule, now: Vitals, past: list[Vitals]) -> None:
        """Write the checkpoint where it is due."""
        best = max((vitals.gain for vitals in past), default=0.0)
        if best > 0 and now.gain < self.keep * best:
            return
        if self.well_looks % self.every_n_looks == 0:
            trainer.save_checkpoint(self.path(trainer), weights_only=False)  # the optimizer's state too
            self.step = now.step
        self.well_looks += 1

    def __call__(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """See `CollapseAction`."""
        if self.step is None:
            return "there is no checkpoint of a well policy to go back to"
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        strategy = trainer.strategy
        checkpoint = strategy.load_checkpoint(self.path(trainer), weights_only=False)  # this run wrote it
        strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
        strategy.load_optimizer_state_dict(checkpoint)
        for optimizer, old in zip(trainer.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, old, strict=True):
                group["lr"] = rate
        return f"weights and optimizer are those of step {self.step} again"
