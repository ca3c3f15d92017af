"""An end of runs whose data trains nothing."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.errors import InputError


class NothingTrained(Callback):
    """Ends a run if all batches of an epoch were skipped: it would take no step, and might never end.

    A batch is skipped where `on_before_batch_transfer` returns None, since no row fits.

    Raises:
        InputError: at the end of such an epoch.
    """

    def __init__(self) -> None:
        self.skipped = 0  # batches of this epoch

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.skipped = 0

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.skipped += batch is None

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        skipped, self.skipped = self.skipped, 0
        if skipped and skipped == trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            limits: Any = getattr(pl_module, "text_batches", None)
            raise InputError(
                f"None of the {skipped} batches of epoch {trainer.current_epoch} has a row that fits {limits}, so "
                "nothing is trained. Raise the limits, or check what the dataloader yields."
            )
