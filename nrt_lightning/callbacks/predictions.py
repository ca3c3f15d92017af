"""Predictions in a JSON lines file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import leaves_nothing
from nrt_lightning.errors import InputError


class PredictionWriter(BasePredictionWriter):
    """Writes one line per question: `id`, `question`, `trace`, `answer`, `marker_emitted`. Without traces, as of
    `SFTModule`, those of the trace are null.

    Each batch is written when it is finished, and the number of lines is printed at the end. With several processes,
    each writes a file with its rank before the suffix. Under `fast_dev_run` nothing is written.

    Args:
        path: file to write, relative to the current directory; null for none, which the command `predict` refuses.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written.
    """

    def __init__(self, path: str | None = None, *, overwrite: bool = False) -> None:
        super().__init__("batch")
        self.path = path
        self.overwrite = overwrite
        self.count = 0  # lines that this process has written

    def file(self, trainer: Trainer) -> Path:
        """The file of this process."""
        path = Path(str(self.path)).expanduser()
        return path if trainer.world_size == 1 else path.with_suffix(f".rank{trainer.global_rank}{path.suffix}")

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict" or self.path is None:
            return
        path = self.file(trainer)
        self.count = 0
        if path.exists() and not self.overwrite:
            raise InputError(f"predictions.path={path} exists. Give another, or set predictions.overwrite=true.")
        if leaves_nothing(trainer):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        except OSError as error:
            raise InputError(f"predictions.path={path} cannot be written ({error}). Give another.") from error

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: list[dict[str, Any]],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if self.path is not None and not leaves_nothing(trainer):
            self.count += len(prediction)
            with self.file(trainer).open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in prediction)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path is None or leaves_nothing(trainer):
            return
        encoded = getattr(getattr(trainer, "datamodule", None), "encoded", {}).get("predict")
        dropped = f"; {encoded.report.dropped_text}" if encoded is not None and encoded.report.dropped else ""
        print(f"{self.count} predictions written to {self.file(trainer)}{dropped}")
