"""What loggers count steps in, and how much training there has been: steps, prompts, rollouts, seconds."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import begins
from nrt_lightning.functional import check_choice
from nrt_lightning.structures import Prompts

UNITS = ("steps", "prompts", "rollouts")


class StepAxis(Callback):
    """Sets the unit in which loggers count, so that runs of different methods share an axis.

    A step of NRT samples `batch_size * group_size` traces, and one of SFT reads `batch_size` answers. Counted in
    rollouts, both have one axis. The count is over all processes and goes on after a resume. Replaced groups
    (`sampling.refill_rounds`) and further epochs of a window are not counted again. `NRTModule` and `SFTModule` add
    this callback with `steps`.

    Args:
        unit: "steps" of the optimizer, "prompts" trained on, or "rollouts": completions trained on, which for SFT are
            its answers.

    Raises:
        InputError: the unit is unknown.

    Example:
        >>> StepAxis("rollouts").unit
        'rollouts'
    """

    def __init__(self, unit: Literal["steps", "prompts", "rollouts"] = "steps") -> None:
        check_choice("StepAxis.unit", unit, UNITS)
        self.unit = unit
        self.steps = self.prompts = self.rollouts = 0
        self.seconds = 0.0  # of training before `started`
        self.started: float | None = None
        self.loaded: int | None = None  # steps of the checkpoint that is only looked at

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.loaded = None
        if begins(trainer, stage):
            self.steps = self.prompts = self.rollouts = 0
            self.seconds, self.started = 0.0, None

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":  # Lightning counts the steps of a checkpoint in a fit only
            self.loaded = checkpoint["global_step"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()
        self.steps = trainer.global_step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(batch, Prompts) and batch.window.epoch == 0:
            count = rows_of(batch) * trainer.world_size
            method = getattr(pl_module, "method", None)
            self.prompts += count
            self.rollouts += count * (method.sampling.group_size if method is not None else 1)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds, self.started = self.elapsed(), None

    def elapsed(self) -> float:
        """Seconds of training over all resumes."""
        return self.seconds + (0.0 if self.started is None else time.perf_counter() - self.started)

    def taken(self, trainer: Any) -> int:
        """Optimizer steps behind the weights: in a validation or test those of the checkpoint that was loaded."""
        return trainer.global_step if self.loaded is None else self.loaded

    def counts(self, trainer: Any) -> dict[str, Any]:
        """What has been trained so far."""
        counts = {"step": self.taken(trainer), "prompts": self.prompts, "rollouts": self.rollouts}
        return counts | {"seconds": round(self.elapsed(), 2)}

    def step(self, trainer: Any, step: int | None = None) -> int:
        """What a logger is given as step; `step` where that is counted in optimizer steps."""
        if self.unit == "steps":
            return self.taken(trainer) if step is None or self.loaded is not None else step
        return self.prompts if self.unit == "prompts" else self.rollouts

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "rollouts": self.rollouts, "seconds": self.elapsed()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.prompts, self.rollouts = state_dict["prompts"], state_dict["rollouts"]
        self.seconds = state_dict["seconds"]


def rows_of(batch: Prompts) -> int:
    """Rows of a micro-batch, which carries those of its whole window until its rollouts are there."""
    size = batch.window.size
    if size == 1 or batch.rollouts is not None:
        return len(batch)
    part = math.ceil(len(batch) / size)
    return max(0, min(part, len(batch) - batch.window.index * part))


def axis_of(trainer: Any) -> StepAxis:
    """The axis of a trainer; a new one in steps where there is none."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, StepAxis)), StepAxis())


def steps_taken(trainer: Any) -> int:
    """Optimizer steps behind the weights of a trainer's module (`StepAxis.taken`)."""
    return axis_of(trainer).taken(trainer)
