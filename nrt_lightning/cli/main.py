"""The command line: `nrt-lightning fit | validate | test | predict`, a LightningCLI, and more commands."""

from __future__ import annotations

import os
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch
from jsonargparse import ActionYesNo
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from typing_extensions import override

import nrt_lightning
from nrt_lightning.callbacks import CheckLongest, PredictionWriter, ResultsFile, RunReport
from nrt_lightning.callbacks.run_folder import unwritable
from nrt_lightning.cli.callbacks import last_of_each, report_replaced
from nrt_lightning.cli.checkpoints import find_checkpoint, tell_kept
from nrt_lightning.cli.help import overview, versions
from nrt_lightning.cli.parser import Parser
from nrt_lightning.cli.run_folder import (
    HeldOutRows,
    SaveRunConfig,
    default_checkpoints,
    move_into_folder,
    temporary_folder,
)
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.strategies.refused import check_launcher

# Commands beyond those of Lightning's Trainer. The module of each has a `main` that takes the arguments.
COMMANDS = {
    module.name: f"nrt_lightning.cli.commands.{module.name}"
    for module in iter_modules([str(Path(__file__).with_name("commands"))])
}
PARSED = re.compile(r"^(Does not validate against|Problem with given class_path|Parser key)")  # texts of the parser
INTERVAL = re.compile(r"`val_check_interval` \((\d+)\).* training batches \((\d+)\)", re.DOTALL)  # a text of Lightning
OTHER_TYPE = re.compile(
    r"^(Expected a|Problem|Does not|Not of type)|^Namespace\(.*is no path$", re.DOTALL
)  # types not meant
# These commands pass their arguments to LightningCLI.
warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")


class NRTCLI(LightningCLI):
    """LightningCLI that writes predictions, and tests after `fit` if there is a `ResultsFile`.

    Everything that a run writes lies in its folder, `trainer.default_root_dir`.
    """

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(PredictionWriter, "predictions")

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument(
                "--check_longest", action=ActionYesNo, nargs="?", default=False,
                help="first run a step with the longest rows, which changes nothing: memory runs out at once or never",
            )  # fmt: skip
        return parser

    @override
    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint that is meant. No settings are read from it: they would choose the code that runs."""
        command = self.config.get("subcommand")
        self.ckpt_path = self.config[command].get("ckpt_path") if command else None  # as it is given
        if self.ckpt_path is not None:
            self.config[command].ckpt_path = find_checkpoint(command, self.config[command])

    @override
    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        report_replaced(config.get("config") or [])
        config.trainer.callbacks = last_of_each(config.trainer.callbacks)
        check_accelerator(config.trainer.accelerator)
        check_writable(config.trainer.default_root_dir or os.getcwd())
        if self.subcommand and issubclass(self.save_config_callback or object, SaveRunConfig):
            given = config.clone()
            given.ckpt_path = self.ckpt_path
            given.pop("check_longest", None)  # of this start alone
            self.save_config_kwargs |= {"given": given, "command": self.subcommand}
        if self.subcommand and config.trainer.fast_dev_run:
            config.trainer.default_root_dir = temporary_folder()
        move_into_folder(config.trainer)

    @override
    def after_instantiate_classes(self) -> None:
        if self.subcommand == "fit":
            check_launcher(self.trainer.strategy)  # here, because later a process of its own would refuse
        if self.subcommand:
            default_checkpoints(self.trainer)

    @property
    def tests(self) -> bool:
        """True if a test follows training."""
        trainer: Any = self.trainer
        return any(isinstance(c, ResultsFile) for c in trainer.callbacks) and not trainer.fast_dev_run

    @property
    def reports(self) -> list[RunReport]:
        """The reports that are written at the end."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, RunReport)]

    def before_fit(self) -> None:
        """Let the rows of the test be read, and the longest rows tried, before the first step; the report waits."""
        for report in self.reports:
            report.later = True
        if self.config["fit"].check_longest:
            self.trainer.callbacks.append(CheckLongest())  # type: ignore[attr-defined]
        if self.tests:
            self.trainer.callbacks.append(HeldOutRows())  # type: ignore[attr-defined]

    def after_fit(self) -> None:
        """Test on the held-out rows if there is a `ResultsFile`, and print where the checkpoints and the report are."""
        if self.tests:
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        tell_kept(self.trainer)
        for report in self.reports:
            report.write(self.trainer)


def check_accelerator(name: Any) -> None:
    """Check that the machine has the accelerator.

    Raises:
        InputError: names the setting.
    """
    known = {"gpu": torch.cuda.is_available() or torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    if not known.get(name, True):
        raise InputError(f"trainer.accelerator={name}: torch finds no GPU here. Use trainer.accelerator=cpu or auto.")


def check_writable(directory: str, option: str = "trainer.default_root_dir") -> None:
    """Check that a directory, or the nearest parent that exists, can be written.

    Raises:
        InputError: names the option and the directory.
    """
    if (blocked := unwritable(Path(directory).expanduser().absolute())) is not None:
        raise InputError(f"{option}={directory!r} cannot be written ({blocked}). Give another directory.")


def run(args: list[str] | None = None) -> NRTCLI | None:
    """Run a command line from Python.

    Args:
        args: the command and its options; None for `sys.argv`.

    Returns:
        The CLI with its trainer, model and data; None for the commands in `COMMANDS`.
    """
    words = sys.argv[1:] if args is None else args
    lightning = list(NRTCLI.subcommands())
    if not words or words[0] in ("-h", "--help", "--version"):
        print(versions() if words[:1] == ["--version"] else overview(lightning, COMMANDS))
        sys.exit(0 if words else 2)
    if words[0] in COMMANDS:
        import_module(COMMANDS[words[0]]).main(words[1:])
        return None
    if not words[0].startswith("-") and words[0] not in lightning:
        raise InputError(f"{words[0]!r} is not a command.{nearest(words[0], [*lightning, *COMMANDS])}")
    return make_cli(NRTCLI, args, save_config_callback=SaveRunConfig)


def make_cli(kind: type[NRTCLI], args: list[str] | None, **settings: Any) -> NRTCLI:
    """Build a CLI for any module and data. With `run=False` it only reads the configs of `fit`.

    Args:
        kind: class of the CLI.
        args: arguments to parse; None for `sys.argv`.
        settings: more arguments of LightningCLI.
    """
    command = kind.__module__.rpartition(".")[2]
    named = {"prog": "nrt-lightning"}
    if command in COMMANDS:
        text = str(sys.modules[kind.__module__].__doc__).partition("`: ")[2].splitlines()[0]
        named = {"prog": f"nrt-lightning {command}", "description": text[:1].upper() + text[1:]}
    settings["parser_kwargs"] = named | settings.get("parser_kwargs", {})
    import_classes()
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


def import_classes() -> None:
    """Import all public classes: a parser finds short names among imported ones."""
    for name in nrt_lightning.__all__:
        getattr(nrt_lightning, name)


def main() -> None:
    """The command `nrt-lightning`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # to find classes and functions of the user, as `python -m` does
    try:
        run()
    except (ValueError, MisconfigurationException, torch.OutOfMemoryError) as error:
        message = input_error(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def input_error(error: BaseException) -> str | None:
    """The message of the error of a user that caused an error, in one line; None if there is none.

    For a union, the parser tries each type and lists their errors. The error of a constructor is one of the causes.
    """
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, InputError):
            return str(cause)
        if isinstance(cause, MisconfigurationException):
            return " ".join(str(cause).split())
        if found := INTERVAL.search(str(cause)):
            return (
                f"trainer.val_check_interval={found[1]}: an epoch has {found[2]} micro-batches, so no validation would "
                f"come. Set it to {found[2]} or less, or set trainer.check_val_every_n_epoch=null to count over epochs."
            )
    if not PARSED.search(str(error)):
        return None
    own = [str(cause) for cause in causes if type(cause) is ValueError]
    tried = re.split(r"^ *- ", str(error).partition("Given value")[0], flags=re.MULTILINE)[1:]  # one entry per type
    texts = [text for text in [*own[::-1], *tried[::-1]] if not (PARSED.search(text) or OTHER_TYPE.search(text))]
    return " ".join(texts[0].split()) if texts else None
