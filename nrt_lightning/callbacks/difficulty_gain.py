"""Gain of traces by the difficulty of the answer tokens."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.metrics import GainByDifficulty


class DifficultyGain(Callback):
    """Logs the gain in confidence that traces give to answer tokens, by decile of difficulty, at the end of a test.

    `test/confidence_decile_1` and `test/baseline_decile_1` are means over the tenth of the answer tokens that is
    hardest to predict without a trace, and `test/gain_decile_1` is their quotient; decile 10 is the easiest. Modules
    without traces log nothing.
    """

    def __init__(self) -> None:
        self.gains = GainByDifficulty()

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.gains.reset()
        self.gains.to(pl_module.device)

    @override
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if isinstance(outputs, dict) and "baseline_logprobs" in outputs:
            mask = batch.answer_mask if batch.counted is None else batch.answer_mask & batch.counted.unsqueeze(1)
            self.gains.update(outputs["logprobs"], outputs["baseline_logprobs"], mask)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.gains.confidences:
            for name, value in self.gains.compute().items():
                pl_module.log(f"test/{name}", value, sync_dist=trainer.world_size > 1)
