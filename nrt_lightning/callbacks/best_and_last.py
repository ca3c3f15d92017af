"""Checkpoints: the best by a validation metric, and the last."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from nrt_lightning.errors import InputError, nearest

log = logging.getLogger(__name__)


class BestAndLast(ModelCheckpoint):
    """Keeps two checkpoints: `best.ckpt`, the best by a validation metric, and `last.ckpt`, the newest.

    The last one is written at every validation and at the end of every epoch. `ModelCheckpoint(save_last=True)` writes
    it only when the best one changes. Existing files of other runs are kept: the next run in the same folder writes
    `best-v1.ckpt` and `last-v1.ckpt`.

    Args:
        monitor: metric that decides which is the best.
        mode: "max" if higher is better, "min" if lower is better.
        save_top_k: number of best checkpoints; 0 keeps the last one only.
        dirpath: directory; null for `checkpoints` in the run's folder.

    Raises:
        InputError: the validation does not log the metric.
    """

    def __init__(
        self, monitor: str = "val/exact_match", mode: str = "max", save_top_k: int = 1, dirpath: str | None = None
    ) -> None:
        super().__init__(dirpath, "best", monitor, mode=mode, save_top_k=save_top_k, save_last=True)
        self._kept = 0  # step of the last checkpoint
        self._warned = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir, "checkpoints").absolute())
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._warned = False
        self.warn_without_rows(trainer)

    def warn_without_rows(self, trainer: Any) -> None:
        """Say once that nothing can be the best. The rows are loaded before the first epoch that has a validation."""
        loaded = trainer.fit_loop.epoch_loop.val_loop._combined_loader is not None
        without = not trainer.enable_validation or (loaded and not any(trainer.num_val_batches))
        if self.save_top_k and without and not self._warned:
            self._warned = True
            log.warning("BestAndLast keeps only last.ckpt: there are no validation rows to measure %s.", self.monitor)

    @override
    def _save_topk_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        """Save if this is one of the best.

        Raises:
            InputError: the validation has not logged the metric.
        """
        if not self.save_top_k or self.monitor in monitor_candidates:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        elif known := [name for name in monitor_candidates if name.startswith("val/")]:
            raise InputError(f"BestAndLast.monitor={self.monitor!r} is not logged.{nearest(str(self.monitor), known)}")

    @override
    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the last checkpoint if training stops here.

        At the end of the epoch it would count the epoch as complete, and a run with more steps could not go on from it.
        """
        if trainer.should_stop or trainer.global_step == trainer.max_steps:
            self.keep_last(trainer)
            self._last_global_step_saved = 0  # a validation may follow: it decides if this is the best

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self.keep_last(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.warn_without_rows(trainer)
        self.keep_last(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass  # the last step has been saved; Lightning would save under `fast_dev_run`

    def keep_last(self, trainer: Trainer) -> None:
        """Write the last checkpoint, unless one of this step exists."""
        if not self._should_skip_saving_checkpoint(trainer) and self._kept != trainer.global_step:
            self._kept = trainer.global_step
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
