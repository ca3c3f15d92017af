"""Which validations a callback looks at, and at which rows."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import begins
from nrt_lightning.callbacks.step_axis import steps_taken
from nrt_lightning.functional import check_at_least
from nrt_lightning.structures import Prompts


class Looks:
    """Looks that are part of validations, some steps apart, at the first validation rows.

    The rows are the first ones of all processes together, which hold every n-th row each. All processes look at equally
    many rows, because they may have to read sharded weights together; what is above the number does not count.

    Args:
        name: of the callback, for errors.
        every_n_steps: optimizer steps between two measurements at least.
        rows: of a measurement.

    Raises:
        InputError: a number is below 1.
    """

    def __init__(self, name: str, every_n_steps: int, rows: int = 1) -> None:
        check_at_least(f"{name}.every_n_steps", every_n_steps, 1)
        check_at_least(f"{name}.rows", rows, 1)
        self.every_n_steps, self.rows = every_n_steps, rows
        self.last: int | None = None  # step of the last measurement
        self.done = self.left = 0  # rows of this process in this measurement
        self.processes, self.rank = 1, 0

    def begin(self, trainer: Any) -> bool:
        """Whether the validation that starts, or ends, is looked at."""
        step = steps_taken(trainer)
        due = self.last is None or step < self.last or step - self.last >= self.every_n_steps
        due = (due or trainer.state.fn != "fit") and not trainer.sanity_checking
        self.processes, self.rank = trainer.world_size, trainer.global_rank
        self.done, self.left = 0, -(-self.rows // self.processes) if due else 0
        self.last = step if due else self.last
        return due

    def take(self, batch: Any) -> tuple[Prompts, Tensor] | None:
        """The rows of a batch that are looked at, and which of them count `[B]`; None without any."""
        if not self.left or not isinstance(batch, Prompts):
            return None
        prompts = batch.slice(0, self.left)
        device = prompts.prompt_ids.device
        places = self.rank + self.processes * (self.done + torch.arange(len(prompts), device=device))
        counted = places < self.rows if prompts.counted is None else prompts.counted & (places < self.rows)
        self.done += len(prompts)
        self.left -= len(prompts)
        return prompts, counted


class LookingCallback(Callback):
    """A callback with `Looks`, whose checkpoints keep the step of the last one."""

    looks: Looks

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if begins(trainer, stage):
            self.looks.last = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"last": self.looks.last}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looks.last = state_dict["last"]
