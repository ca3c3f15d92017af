"""The command line: `nrt-lightning fit | validate | test | predict`, a LightningCLI."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nrt_lightning.callbacks import PredictionWriter, ResultsFile
from nrt_lightning.errors import InputError
from nrt_lightning.suggestions import suggestion


class Parser(LightningArgumentParser):
    """Names what is near to a misspelt class or argument."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Add suggestions to the message."""
        super().error(message + suggestion(message, [a.dest for a in self._actions]), ex)

    def print_usage(self, file: Any = None) -> None:
        """Nothing: two hundred lines of options before an error hide it."""


class NRTCLI(LightningCLI):
    """LightningCLI for policies: tests after `fit` where results are wanted, and writes predictions."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options beside trainer, model and data."""
        parser.add_lightning_class_args(PredictionWriter, "predictions")

    def before_instantiate_classes(self) -> None:
        """Refuse an output directory that cannot be written, before weights are read."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        check_writable(config.trainer.default_root_dir or os.getcwd())

    def after_fit(self) -> None:
        """Test on held-out rows, if the results are to be kept."""
        trainer: Any = self.trainer
        if any(isinstance(c, ResultsFile) for c in trainer.callbacks) and not trainer.fast_dev_run:
            trainer.test(self.model, datamodule=self.datamodule, verbose=False)


def check_writable(directory: str) -> None:
    """Raise where nothing can be written to a directory or, if it is yet to be made, to the one it goes into.

    Raises:
        InputError: naming the directory.
    """
    path = Path(directory).expanduser().absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise InputError(f"trainer.default_root_dir {directory!r} cannot be written ({path}). Give another directory.")


def run(args: list[str] | None = None) -> NRTCLI:
    """Run a command line from Python, and get the CLI with its trainer, model and data.

    Args:
        args: the command and its options; null for those of the process.
    """
    return NRTCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        parser_class=Parser,
        args=args,
    )


def main() -> None:
    """The command `nrt-lightning`."""
    try:
        run()
    except InputError as error:
        sys.exit(f"error: {error}")
