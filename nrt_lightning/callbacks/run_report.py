"""A report at the end of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import check_parent, in_run_folder, leaves_nothing
from nrt_lightning.tools.report import write_report

log = logging.getLogger(__name__)


class RunReport(Callback):
    """Writes a page about the runs in the run's folder when a run has ended, and prints its path as the last line.

    The page is that of `nrt-lightning report`: one HTML file that opens without network. An error while it is made is
    said in one line and does not fail the run.

    Args:
        path: the file, relative to the run's folder; an existing one is replaced.

    Raises:
        InputError: before training, if the file cannot be written.
    """

    def __init__(self, path: str = "report.html") -> None:
        self.given = path
        self.later = False  # the command line writes it after the test

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            check_parent(self.path(trainer), "RunReport.path")

    def path(self, trainer: Any) -> Path:
        """The file."""
        return in_run_folder(self.given, trainer.default_root_dir)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage in ("fit", "test") and not self.later:
            self.write(trainer)

    def write(self, trainer: Any) -> None:
        """Write the page and print its path."""
        if not trainer.is_global_zero or leaves_nothing(trainer) or not trainer.global_step:
            return
        path = self.path(trainer)
        try:
            write_report([trainer.default_root_dir], path)
        except Exception as error:  # of any kind: the run is done, and its results are worth more than a page
            why = " ".join(str(error).split()) or type(error).__name__
            log.warning("RunReport: no report was written (%s). `nrt-lightning report` tries again.", why)
            return
        print(f"report: {path}", flush=True)
