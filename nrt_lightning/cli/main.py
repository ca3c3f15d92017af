"""The command line: `nrt-lightning fit | validate | test | predict`, a LightningCLI, and commands of our own."""

from __future__ import annotations

import os
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import nrt_lightning
from nrt_lightning.callbacks import PredictionWriter, ResultsFile
from nrt_lightning.cli.suggestions import suggestion
from nrt_lightning.errors import InputError

# Commands beyond those of Lightning's Trainer. The module of each has a `main` that takes the arguments.
COMMANDS = {
    module.name: f"nrt_lightning.cli.commands.{module.name}"
    for module in iter_modules([str(Path(__file__).with_name("commands"))])
}
# A command of our own passes its arguments on.
warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")


class Parser(LightningArgumentParser):
    """Names what is near to a misspelled class or argument."""

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

    def _parse_ckpt_path(self) -> None:
        """Take the model's settings from the checkpoint where none are given; those that are given win over it."""
        command = self.config.get("subcommand")
        if command and self.config[command].get("model") is None:
            super()._parse_ckpt_path()

    def before_instantiate_classes(self) -> None:
        """Refuse an output directory that cannot be written and a checkpoint that cannot be read."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        check_writable(config.trainer.default_root_dir or os.getcwd())
        check_checkpoint(config.get("ckpt_path"))

    def after_fit(self) -> None:
        """Test on held-out rows, if the results are to be kept."""
        trainer: Any = self.trainer
        if any(isinstance(c, ResultsFile) for c in trainer.callbacks) and not trainer.fast_dev_run:
            trainer.test(self.model, datamodule=self.datamodule, verbose=False)


def check_writable(directory: str, option: str = "trainer.default_root_dir") -> None:
    """Raise where nothing can be written to the directory of an option or, if it is yet to be made, to its parent.

    Raises:
        InputError: naming the directory.
    """
    path = Path(directory).expanduser().absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise InputError(f"{option} {directory!r} cannot be written ({path}). Give another directory.")


def check_checkpoint(path: str | None) -> None:
    """Raise where a checkpoint cannot be read; `best`, `last` and the like are left to Lightning.

    Raises:
        InputError: naming the file.
    """
    if path is None or path in ("best", "last", "hpc") or path.startswith("registry"):
        return
    if not Path(path).exists():
        raise InputError(f"ckpt_path {path!r}: no such file. Give a checkpoint, or 'last' or 'best'.")
    if Path(path).is_file():
        try:
            torch.load(path, weights_only=True, mmap=True, map_location="meta")
        except Exception as error:  # torch raises errors of many types for files that are no checkpoints
            raise InputError(f"ckpt_path {path!r} is no checkpoint that can be read ({error}).") from error


def run(args: list[str] | None = None) -> NRTCLI | None:
    """Run a command line from Python, and get the CLI with its trainer, model and data; None from our own commands.

    Args:
        args: the command and its options; null for those of the process.
    """
    words = sys.argv[1:] if args is None else args
    if words and words[0] in COMMANDS:
        import_module(COMMANDS[words[0]]).main(words[1:])
        return None
    more = f"Further commands, each with its own --help: {', '.join(COMMANDS)}."
    settings = {command: {"allow_abbrev": False} for command in NRTCLI.subcommands()}
    return make_cli(NRTCLI, args, save_config_kwargs={"overwrite": True}, parser_kwargs=settings | {"epilog": more})


def make_cli(kind: type[NRTCLI], args: list[str] | None, **settings: Any) -> NRTCLI:
    """A CLI for any module and data; with `run=False` a command of our own reads the configs that `fit` reads.

    Args:
        kind: its class.
        args: what to parse; null for the arguments of the process.
        settings: further ones of LightningCLI.
    """
    for name in nrt_lightning.__all__:  # short class names are looked up among what is imported
        getattr(nrt_lightning, name)
    return kind(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=Parser,
        args=args,
        **settings,
    )


def main() -> None:
    """The command `nrt-lightning`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # classes and functions of the user's own are found here, as under `python -m`
    try:
        run()
    except ValueError as error:
        message = input_error(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def input_error(error: BaseException) -> str | None:
    """The message of the InputError behind an error, or None.

    The parser tries one type of a union after the other and lists what each of them said: the error of a constructor
    is then one of its causes, or one line of its text.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    said = re.findall(r"^\s+- (?!Expected|Does not|Problem|Parser key)(.+)$", str(error), re.MULTILINE)
    return said[-1] if said else None
