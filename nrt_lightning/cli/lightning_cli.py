"""The commands of Lightning's Trainer: `nrt-lightning fit | validate | test | predict`."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from jsonargparse import ActionYesNo
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

import nrt_lightning
from nrt_lightning.callbacks import CheckLongest, PredictionWriter, ResultsFile, RunReport
from nrt_lightning.cli.callbacks import last_of_each, report_replaced
from nrt_lightning.cli.checkpoints import find_checkpoint, tell_kept
from nrt_lightning.cli.commands import COMMANDS
from nrt_lightning.cli.help import TRAINER, own_options, short_help, trainer_help
from nrt_lightning.cli.names import LIVE
from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.cli.run_folder import (
    HeldOutRows,
    SaveRunConfig,
    default_checkpoints,
    move_into_folder,
    temporary_folder,
)
from nrt_lightning.cli.setting_checks import (
    check_accelerator,
    check_numbers,
    check_optimizer,
    check_predictions,
    check_writable,
)
from nrt_lightning.errors import InputError
from nrt_lightning.strategies.refused import check_launcher, check_parts

# These commands pass their arguments to LightningCLI.
warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")


REFUSED = (ValueError, TypeError, RuntimeError, ImportError)  # of settings that fit neither each other nor the machine


class Parser(PlainParser, LightningArgumentParser):
    """Parser of the commands that read a module and data."""

    takes_classes = True
    whole_help = False

    @override
    def parse_args(self, args: Any = None, *more: Any, **settings: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        if "--help=all" in words:
            words[words.index("--help=all")] = "--help"
            for parser in (self, *self.inner_parsers()):
                parser.whole_help = True
        return super().parse_args(words, *more, **settings)

    @override
    def format_help(self, *args: Any) -> str:
        run = any(action.dest == "trainer.max_steps" for action in self._actions)
        if not run or self.whole_help:
            return super().format_help(*args)
        words = self.prog.replace(" [options]", "").split()
        if words[-1] in TRAINER:
            return trainer_help(words[-1])
        return short_help(" ".join(words), str(self.description or ""), own_options(self))

    def add_subclass_arguments(self, *args: Any, **settings: Any) -> Any:
        """Without the tokenizer of a live model, which only Python can give."""
        return super().add_subclass_arguments(*args, **settings | {"skip": {f"policy.init_args.{LIVE}"}})


class NRTCLI(LightningCLI):
    """LightningCLI that writes predictions, and tests after `fit` if there is a `ResultsFile`.

    Everything that a run writes lies in its folder, `trainer.default_root_dir`.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        words = settings.get("args")
        self.named = ((sys.argv[1:] if words is None else words) or [""])[0]  # the command that is run
        super().__init__(*args, **settings)

    @override
    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        if add_subcommands and self.named in (every := self.subcommands()):  # each parser takes long
            self.subcommands = lambda: {self.named: every[self.named]}  # type: ignore[method-assign]
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)

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
    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            seed = self._get(self.config, "seed_everything")
            raise InputError(f"seed_everything={seed}: {error}. Give another number.") from error

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
        check_numbers(config.trainer)
        check_optimizer(config.get("model"))
        if self.subcommand == "predict":
            check_predictions(config)
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
    def instantiate_trainer(self, **settings: Any) -> Trainer:
        try:
            return super().instantiate_trainer(**settings)
        except REFUSED as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error

    @override
    def after_instantiate_classes(self) -> None:
        if self.subcommand:
            check_parts(self.trainer)
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
