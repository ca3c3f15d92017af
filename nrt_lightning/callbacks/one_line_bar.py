"""A progress bar on one line of a terminal."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from typing_extensions import override


class OneLineBar(TQDMProgressBar):
    """Lightning's tqdm bar without a second line for validations, whose figures `ValidationTable` shows."""

    @override
    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True) if self.trainer.state.fn == "fit" else super().init_validation_tqdm()

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        found = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in found.items() if name not in ("v_num", "val/exact_match")}
