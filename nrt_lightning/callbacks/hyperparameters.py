"""Hyperparameters of a run in its loggers."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from nrt_lightning.callbacks.dashboard import shown_name
from nrt_lightning.callbacks.flat_config import run_settings
from nrt_lightning.callbacks.run_folder import leaves_nothing
from nrt_lightning.callbacks.run_history import histories

METRICS = (
    "val/exact_match",
    "val/confidence",
    "val/confidence_without_trace",
    "train/reward",
    "train/gain",
    "train/loss",
)

OF_TRACES = ("val/confidence_without_trace", "train/reward", "train/gain")


class Hyperparameters(Callback):
    """Gives the settings of a run to every logger, by their names on the command line.

    TensorBoard shows them under HPARAMS beside the last metrics of training and validation, `CSVLogger` writes
    `hparams.yaml`, W&B and MLflow have them as the config and parameters of the run. `NRTModule` and `SFTModule` add
    this callback.
    """

    def __init__(self) -> None:
        self.logged: list[Any] = []  # loggers that have them
        self.ends: list[tuple[Any, Any]] = []  # TensorBoard's loggers with what is written when training ends

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        new = [logger for logger in trainer.loggers if logger not in self.logged]
        if not new or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        settings, module = run_settings(trainer, pl_module), pl_module
        names = [*METRICS, *(f"val/{name}" for name in getattr(module, "metrics").names)]  # noqa: B009
        names = [shown_name(trainer, name) for name in names if hasattr(module, "method") or name not in OF_TRACES]
        for logger in new:
            self.logged.append(logger)
            if isinstance(logger, TensorBoardLogger):
                self.to_tensorboard(logger, settings, names)
            else:
                logger.log_hyperparams(settings)

    def to_tensorboard(self, logger: TensorBoardLogger, settings: dict[str, Any], metrics: list[str]) -> None:
        """Write the HPARAMS of a run. Metrics are named, not set: TensorBoard shows their last logged values."""
        from torch.utils.tensorboard.summary import hparams

        logger.hparams.update(settings)  # of its hparams.yaml
        texts = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        experiment, start, end = hparams(texts, dict.fromkeys(metrics, 0.0))
        writer = logger.experiment._get_file_writer()
        writer.add_summary(experiment)
        writer.add_summary(start)
        self.ends.append((logger, end))  # a validation before the fit closes the writer

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.note_end(trainer, ended=False)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.note_end(trainer, ended=True)

    def note_end(self, trainer: Trainer, *, ended: bool) -> None:
        """Let `run.json` say whether training has ended."""
        for history in [] if leaves_nothing(trainer) else histories(trainer):
            history.note_end(trainer, ended=ended)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger, end in self.ends:
            logger.experiment._get_file_writer().add_summary(end)
        self.ends.clear()
