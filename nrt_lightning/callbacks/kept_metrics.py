"""Keeps the metrics of before in the file of a `CSVLogger` that a resumed run writes to."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from typing_extensions import override

from nrt_lightning.callbacks.run_history import add_history, histories
from nrt_lightning.callbacks.run_lines import Place, place_of, written_before
from nrt_lightning.callbacks.step_axis import axis_of
from nrt_lightning.files import replaced, set_aside

Row = dict[str, str]


class KeptMetrics(ExperimentWriter):
    """Writes metrics behind those that the file has. Lightning's writer deletes the file first."""

    @override
    def _check_log_dir_exists(self) -> None:
        if self.path.stat().st_size if self.path.exists() else False:
            with self.path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.metrics_file_path)

    def keep(self, wanted: Callable[[Row], bool]) -> list[Row]:
        """Leave only some rows in the file, replaced at once; return them."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values() and wanted(row)]
        with replaced(self.path, newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
        return rows

    def set_aside(self) -> None:
        """Rename the file of an earlier run."""
        set_aside(self.path)
        self.metrics_keys = []


def keep_metrics(trainer: Any) -> None:
    """Make the loggers of a trainer with local files keep what these have. Called before they open them."""
    add_history(trainer)
    if not trainer.is_global_zero or trainer.fast_dev_run:
        return
    for logger in trainer.loggers:
        if type(logger) is CSVLogger and logger._experiment is None and "://" not in str(logger.log_dir):
            logger._experiment = KeptMetrics(logger.log_dir)


def writers(trainer: Any) -> list[tuple[Any, KeptMetrics]]:
    """The CSV loggers of this process, and their writers."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    found = [(logger, getattr(logger, "_experiment", None)) for logger in loggers]
    return [(logger, writer) for logger, writer in found if isinstance(writer, KeptMetrics)]


def unlogged(trainer: Any) -> dict[str, float]:
    """Write the metrics so far; return those of the newest micro-batch, which Lightning logs after its hooks."""
    for logger, _ in writers(trainer):
        logger.save()
    progress, connector = trainer.fit_loop.epoch_loop.batch_progress.total, trainer._logger_connector
    hooks = trainer.training and progress.completed < progress.processed
    if not hooks or trainer.fit_loop._should_accumulate() or not connector.should_update_logs:
        return {}
    metrics = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {"epoch": trainer.current_epoch} | metrics


def begin(trainer: Any) -> None:
    """Set the metrics of another run aside."""
    for _, writer in writers(trainer):
        writer.set_aside()
    for history in histories(trainer) if trainer.is_global_zero else []:
        history.begin()


def go_back(trainer: Any, step: int, last: dict[str, float], before: Place | None, *, validate: bool) -> None:
    """Leave the rows from before a checkpoint in the files, and add the last one if it is missing.

    Args:
        trainer: that resumes.
        step: that loggers get next.
        last: of `unlogged`, as the checkpoint has it.
        before: the file of `RunHistory`, as the checkpoint has it.
        validate: the validation after the checkpoint is done again.
    """
    for history in histories(trainer) if trainer.is_global_zero else []:
        history.go_back(trainer.global_step, last, written_before(before, trainer), validate=validate)
    step = axis_of(trainer).step(trainer, step - 1) + 1

    def wanted(row: Row) -> bool:
        number = int(row["step"])
        again = validate and number == step - 1 and any(v and k.startswith("val/") for k, v in row.items())
        return number < step and not again

    for logger, writer in writers(trainer):
        kept = [row for row in writer.keep(wanted) if int(row["step"]) == step - 1]
        if any(name != "epoch" and not any(row.get(name) for row in kept) for name in last):
            logger.log_metrics(last, step - 1)
            logger.save()


def history_file(trainer: Any) -> Place | None:
    """The file of `RunHistory`, for a checkpoint; None without one."""
    found = histories(trainer) if trainer.is_global_zero else []
    return place_of(found[0].file.path, trainer) if found else None
