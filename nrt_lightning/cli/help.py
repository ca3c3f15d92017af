"""Help that fits on one screen: the options that most runs set, and how to see all others."""

from __future__ import annotations

import argparse
import ast
import textwrap
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import nrt_lightning

WIDTH, COLUMN = 110, 36
HELP_WORDS = ("-h", "--help")
SETTINGS = {
    "configs": {
        "--config FILE": "YAML file, or nrt:NAME of `nrt-lightning configs`; a later one changes single keys",
        "--print_config": "print the whole configuration and exit",
        "--seed_everything=N": "seed of all random numbers",
    },
    "model": {
        "--model=CLASS": "NRTModule, SFTModule, or a class of yours",
        "--model.policy.model=NAME": "directory, hub id, or embedded base",
        "--model.policy.adapter=LoRA": "train few weights",
        "--model.aggregator=CLASS": "reward of a trace: WeightedSum, GeometricMean, ...",
        "--model.sampling.group_size=N": "traces per prompt",
        "--model.sampling.max_trace_tokens=N": "longer traces are truncated",
        "--model.optimizer.lr=RATE": "learning rate; the optimizer is --model.optimizer=torch.optim.AdamW",
    },
    "data": {
        "--data.train=PATH": "rows with questions and answers; --data.val, --data.test, --data.predict likewise",
        "--data.val_rows=N": "take validation rows from the training rows",
        "--data.batch_size=N": "prompts per micro-batch",
        "--data.max_prompt_tokens=N": "longer rows are dropped and counted; --data.max_answer_tokens likewise",
    },
    "trainer": {
        "--trainer.max_epochs=N": "passes over the rows; --trainer.max_steps counts optimizer steps",
        "--trainer.accelerator=NAME": "auto, cpu, gpu; --trainer.devices, --trainer.strategy, --trainer.precision",
        "--trainer.default_root_dir=PATH": "directory for what the run writes",
        "--trainer.callbacks+=CLASS": "add a callback",
    },
}
OWN_WORDS = {  # shorter than Lightning's
    "ckpt_path": "checkpoint to resume or to evaluate",
    "weights_only": "read only tensors of the checkpoint (default)",
    "verbose": "print the metrics",
    "check_longest": "first try the longest rows, in a step that changes nothing",
    "return_predictions": "keep the predictions in memory",
}
CHECKPOINT = {"--ckpt_path=VALUE": OWN_WORDS["ckpt_path"]}
WEIGHTS = {"--weights_only=VALUE": OWN_WORDS["weights_only"]}
METRICS = {"--verbose=VALUE": OWN_WORDS["verbose"]}
PREDICTIONS = {"--return_predictions=VALUE": OWN_WORDS["return_predictions"]}
ALL = {
    "--model.help=NRTModule": "all settings of a class; --data.help=QADataModule, --trainer.callbacks.help=ResultsFile",
    "--help=all": "all options, with those of Lightning's Trainer",
}


@dataclass(frozen=True)
class TrainerCommand:
    """A command of Lightning's Trainer, as Lightning's parser describes it."""

    does: str
    description: str
    options: dict[str, str]


TRAINER = {
    "fit": TrainerCommand("train", "Runs the full optimization routine.", CHECKPOINT | WEIGHTS),
    "validate": TrainerCommand(
        "evaluate on the validation rows",
        "Perform one evaluation epoch over the validation set.",
        CHECKPOINT | METRICS | WEIGHTS,
    ),
    "test": TrainerCommand(
        "evaluate on the test rows",
        "Perform one evaluation epoch over the test set.",
        CHECKPOINT | METRICS | WEIGHTS,
    ),
    "predict": TrainerCommand(
        "write traces and answers for questions",
        "Run inference on your data.",
        PREDICTIONS | CHECKPOINT | WEIGHTS,
    ),
}


def trainer_help(command: str) -> str:
    """Help of a command of Lightning's Trainer, without its parser, which takes seconds."""
    return short_help(f"nrt-lightning {command}", TRAINER[command].description, TRAINER[command].options)


def short_help(prog: str, description: str, own: dict[str, str]) -> str:
    """Help of a command that reads a module and data.

    Args:
        prog: the command.
        description: of the command.
        own: its own options, with their meanings.
    """
    lines = [f"usage: {prog} --config FILE [--config FILE ...] [--SETTING=VALUE ...]", "", description]
    groups = ({prog.rpartition(" ")[2]: own} if own else {}) | SETTINGS | {"more": ALL}
    for title, options in groups.items():
        lines += ["", f"{title}:", *(row(option, text) for option, text in options.items())]
    return "\n".join(lines) + "\n"


def own_options(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Options that only this command has, with the first words of their help."""
    common = ("trainer", "model", "data", "predictions", "config", "help", "print_config", "seed_everything")
    found = {}
    for action in parser._actions:
        text = " ".join(str(action.help or "").split())
        whole = text.startswith("Path to a configuration file")  # of all settings of a part
        if (
            action.option_strings
            and text
            and not whole
            and action.dest.split(".")[0] not in common
            and action.nargs != 0
        ):
            name = [option for option in action.option_strings if not option.startswith("--no_")][-1]
            found[name if action.nargs == "?" else f"{name}=VALUE"] = OWN_WORDS.get(action.dest, text)
    return {option: text for option, text in found.items() if not option.startswith("--print_shtab")}


def row(option: str, text: str) -> str:
    """An option and its meaning on one line."""
    return f"  {option:<{COLUMN}} {textwrap.shorten(text, WIDTH - COLUMN - 3, placeholder=' ...')}"


def overview(commands: dict[str, str]) -> str:
    """Help of `nrt-lightning` itself.

    Args:
        commands: modules of the commands that are not of Lightning's Trainer, by name.
    """
    does = {name: command.does for name, command in TRAINER.items()} | {
        name: first_line(module).rstrip(".") for name, module in commands.items()
    }
    lines = [f"  {name:<12} {text}" for name, text in does.items()]
    return "\n".join([
        "usage: nrt-lightning COMMAND [OPTIONS]", "", *lines, "", "  --version    print the version", "",
        "nrt-lightning COMMAND --help shows the options of a command.",
        "nrt-lightning fit --config nrt:quickstart is a first run.",
    ])  # fmt: skip


def first_line(module: str) -> str:
    """What a command does, from the docstring of its module, which is not imported.

    >>> first_line("nrt_lightning.cli.commands.configs")
    'list the configs of this package, or print one.'
    """
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("`: ")[2].splitlines()[0]


def versions() -> str:
    """The version of this package and of those that it stands on.

    >>> versions().startswith(f"nrt-lightning {nrt_lightning.__version__} (torch ")
    True
    """
    found = []
    for name in ("torch", "lightning", "transformers"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return f"nrt-lightning {nrt_lightning.__version__} ({', '.join(found)})"
