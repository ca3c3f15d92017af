"""Test metrics of finished runs in one file and one table."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from typing_extensions import override

from nrt_lightning.callbacks.collapse import CollapseDetector
from nrt_lightning.callbacks.run_folder import begins, check_parent, in_run_folder, leaves_nothing
from nrt_lightning.errors import InputError
from nrt_lightning.files import replaced

COLUMNS = {  # titles of figures
    "exact_match": "exact match",
    "exact_match_forced": "marker forced",
    "checked_match": "hard tokens",
    "checked_match_forced": "hard, marker forced",
    "exact_match_without_trace": "without trace",
    "confidence": "confidence",
    "trace_tokens": "trace tokens",
    "trace_entropy": "trace entropy",
    "collapse": "collapsed",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
}
SHOWN = (  # after `fit`
    "exact_match", "exact_match_forced", "exact_match_without_trace", "confidence", "trace_tokens", "seconds"
)  # fmt: skip


class ResultsFile(Callback):
    """Adds the test metrics and training time of a run to a JSON file, `{name: {metric: value}}`, and prints a table.

    With this callback, `nrt-lightning fit` tests on the held-out rows after training. It reads them before the first
    step. A resumed run adds to the training time of its checkpoint. With a CollapseDetector, `collapse` is 1 if it has
    raised an alarm.

    Args:
        path: the JSON file, relative to the run's folder; entries with other names are kept.
        name: name of this run in the file.

    Raises:
        InputError: the file cannot be written or is not a results file.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = self.given = Path(path)
        self.name = name
        self.seconds, self.cpu_seconds = 0.0, 0.0  # of training; CPU time of all threads of this process
        self._started: tuple[float, float] | None = None  # during training

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if begins(trainer, stage):
            self.seconds, self.cpu_seconds = 0.0, 0.0
        self.path = in_run_folder(self.given, trainer.default_root_dir)
        self.read()
        check_parent(self.path, "ResultsFile.path")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = (time.perf_counter(), time.process_time())

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds, self.cpu_seconds = self.times()
        self._started = None

    def times(self) -> tuple[float, float]:
        """Seconds and CPU seconds of training so far."""
        if self._started is None:
            return self.seconds, self.cpu_seconds
        seconds, cpu_seconds = self._started
        return self.seconds + time.perf_counter() - seconds, self.cpu_seconds + time.process_time() - cpu_seconds

    @override
    def state_dict(self) -> dict[str, Any]:
        return dict(zip(("seconds", "cpu_seconds"), self.times(), strict=True))

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.cpu_seconds = state_dict["seconds"], state_dict["cpu_seconds"]

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or leaves_nothing(trainer):
            return
        metrics = {k.removeprefix("test/"): round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        times = {"seconds": round(self.seconds, 1), "cpu_seconds": round(self.cpu_seconds, 1)}
        results = self.read() | {self.name: metrics | times | collapse(trainer)}
        with replaced(self.path) as file:
            file.write(json.dumps(results, indent=2) + "\n")
        print(f"\n{results_table(results)}\n\nwritten to {self.path}")
        print("".join(f"curves: {where}\n" for where in curves(trainer)))

    def read(self) -> dict[str, dict[str, Any]]:
        """The contents of the file; empty if it does not exist."""
        if not self.path.exists():
            return {}
        try:
            results = json.loads(self.path.read_text())
        except (ValueError, OSError) as error:
            raise InputError(f"ResultsFile.path={self.path} is not a results file ({error}). Move it away.") from error
        if not isinstance(results, dict) or not all(isinstance(run, dict) for run in results.values()):
            raise InputError(f"ResultsFile.path={self.path} is not a results file of runs by name. Move it away.")
        return results


def collapse(trainer: Trainer) -> dict[str, float]:
    """Whether the run's CollapseDetector has raised an alarm, whatever was logged; nothing without a detector."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    detectors = [callback for callback in callbacks if isinstance(callback, CollapseDetector)]
    return {"collapse": float(any(detector.alarms for detector in detectors))} if detectors else {}


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Format results as an aligned table.

    >>> print(results_table({"nrt": {"exact_match": 1.0, "seconds": 41.0}}))
    run | exact match | seconds
    ----|-------------|--------
    nrt |       1.000 |    41.0
    """
    columns = [c for c in SHOWN if any(c in metrics for metrics in results.values())]
    header = ["run", *(COLUMNS[c] for c in columns)]
    rows = [[name, *(cell(c, metrics.get(c)) for c in columns)] for name, metrics in results.items()]
    return "\n".join(aligned([header, *rows]))


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as a table with a rule under the first.

    >>> aligned([["a", "b"], ["long", "1.0"]])
    ['a    |   b', '-----|----', 'long | 1.0']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
             for row in rows]  # fmt: skip
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return lines


def cell(column: str, value: float | None) -> str:
    """Format a value for the table."""
    if value is None:
        return "-"
    return f"{value:.1f}" if column in ("seconds", "trace_tokens") else f"{value:.3f}"


def curves(trainer: Trainer) -> list[str]:
    """Where the curves of the loggers with local files are, or the command that shows them."""
    found = []
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            own, folder = Path(logger.log_dir).absolute(), Path(trainer.default_root_dir)
            found.append(f"tensorboard --logdir {folder if own.is_relative_to(folder.absolute()) else logger.log_dir}")
        elif isinstance(logger, CSVLogger):
            found.append(str(Path(logger.log_dir, "metrics.csv")))
    return found
