"""Keeps values that are not finite out of the weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import begins
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.rollouts.non_finite import NonFiniteLogits
from nrt_lightning.strategies import Processes, gather_objects
from nrt_lightning.structures import Prompts

log = logging.getLogger(__name__)
NAME = "skipped_steps.jsonl"


class NonFiniteGuard(Callback):
    """Skips optimizer steps whose loss or gradient is not finite, on all processes together.

    One such value would reach all weights. Its gradients are removed, so neither weights nor the optimizer's state
    move. The step is counted as `train/skipped_steps`, and its rows are written to `skipped_steps.jsonl` in the run's
    folder, with what was not finite. `NRTModule`, `SFTModule` and `OnPolicyRollout` add this callback.

    Under a gradient scaler (`precision: 16-mixed`), a gradient overflows now and then, and the scaler lowers its scale:
    only overflows in consecutive steps count.

    Args:
        max_in_a_row: skipped steps in a row that end the run.

    Raises:
        InputError: `max_in_a_row` is below 1, or as many steps in a row are not finite.
    """

    def __init__(self, max_in_a_row: int = 3) -> None:
        check_at_least("NonFiniteGuard.max_in_a_row", max_in_a_row, 1)
        self.max_in_a_row = max_in_a_row
        self.reset()

    def reset(self) -> None:
        """Forget an earlier run."""
        self.skipped = self.in_a_row = 0
        self.batch: Any = None
        self.rows: dict[str, None] = {}  # ids of the rows of this step, in order
        self.loss: Tensor | None = None  # the sum of this step's losses

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if begins(trainer, stage):
            self.reset()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if isinstance(self.batch, Prompts):
            self.rows |= dict.fromkeys(row.id for row in self.batch.rows)
        value = loss.detach().double() if loss.device.type != "mps" else loss.detach()
        self.loss = value if self.loss is None else self.loss + value

    @override
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        policy = getattr(pl_module, "policy", None)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in params if p.grad is not None]
        norm = get_total_norm(grads) if policy is None else policy.sharding.grad_norm(policy)
        loss = torch.zeros(()) if self.loss is None else self.loss
        finite = torch.stack([loss.to(norm.device).isfinite(), norm.isfinite()]).tolist()
        problems = [name for name, fine in zip(("loss", "gradient"), finite, strict=True) if not fine]
        rows, self.rows, self.loss = list(self.rows), {}, None
        if not Processes(trainer.strategy).largest(int(bool(problems))):
            self.in_a_row = 0
            return
        for parameter in params:
            parameter.grad = None
        self.skip(trainer, pl_module, problems, rows)

    def skip(self, trainer: Any, pl_module: Any, problems: list[str], rows: list[str]) -> None:
        """Count a step that is skipped, write its rows, and end the run if it is one too many."""
        self.in_a_row += 1
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled and self.in_a_row == 1:
            return
        self.skipped += 1
        pl_module.log("train/skipped_steps", float(self.skipped), batch_size=1)
        found = gather_objects({"not_finite": problems, "rows": rows})
        names = sorted({name for part in found for name in part["not_finite"]})
        ids = [row for part in found for row in part["rows"]]
        path = Path(trainer.default_root_dir, NAME)
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": trainer.global_step, "not_finite": names, "rows": ids}) + "\n")
            log.warning(
                "step %d is skipped: %s not finite. Its rows are in %s.", trainer.global_step, " and ".join(names), path
            )
        if self.in_a_row >= self.max_in_a_row + scaled:
            raise InputError(
                f"{self.in_a_row} optimizer steps in a row were skipped, because {' and '.join(names)} were not finite "
                f"(NonFiniteGuard.max_in_a_row={self.max_in_a_row}). The last rows were {', '.join(ids[:5])}; all are "
                f"in {path}. Lower the learning rate, or check the rows, the rewards and trainer.precision."
            )

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NonFiniteLogits):
            exception.args = (f"step {trainer.global_step}: {exception}",)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]
