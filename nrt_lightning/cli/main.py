"""The command line. Torch and Lightning are imported by the commands that need them."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from nrt_lightning.cli.commands import COMMANDS
from nrt_lightning.cli.help import HELP_WORDS, TRAINER, overview, trainer_help, versions
from nrt_lightning.cli.user_errors import input_error, misconfigured, out_of_memory
from nrt_lightning.errors import InputError, nearest

if TYPE_CHECKING:
    from nrt_lightning.cli.lightning_cli import NRTCLI


def run(args: list[str] | None = None) -> NRTCLI | None:
    """Run a command line from Python.

    Args:
        args: the command and its options; None for `sys.argv`.

    Returns:
        The CLI with its trainer, model and data; None for the commands in `COMMANDS`.
    """
    return prepared(args)()


def prepared(args: list[str] | None) -> Callable[[], NRTCLI | None]:
    """What a command line runs, after the import of all that it needs."""
    words = sys.argv[1:] if args is None else args
    if not words or words[0] in (*HELP_WORDS, "--version"):
        print(versions() if words[:1] == ["--version"] else overview(COMMANDS))
        sys.exit(0 if words else 2)
    if words[0] in COMMANDS:
        command = import_module(COMMANDS[words[0]])

        def run_command() -> None:
            command.main(words[1:])

        return run_command
    if not words[0].startswith("-") and words[0] not in TRAINER:
        raise InputError(f"{words[0]!r} is not a command.{nearest(words[0], [*TRAINER, *COMMANDS])}")
    if len(words) == 2 and words[1] in HELP_WORDS:
        print(trainer_help(words[0]), end="")
        sys.exit(0)
    from nrt_lightning.cli.lightning_cli import NRTCLI, SaveRunConfig, make_cli

    return partial(make_cli, NRTCLI, args, save_config_callback=SaveRunConfig)


def main() -> None:
    """The command `nrt-lightning`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # to find classes and functions of the user, as `python -m` does
    try:
        imported()()
    except Exception as error:
        message = input_error(error) if isinstance(error, ValueError) or of_a_library(error) else None
        if message is None:
            raise
        sys.exit(f"error: {message}")
    except KeyboardInterrupt as stop:
        sys.stderr.write(": ".join(["interrupted", *map(str, stop.args)]) + "\n")
        sys.exit(128 + signal.SIGINT)


def imported() -> Callable[[], NRTCLI | None]:
    """What the command of this process runs. Thousands of modules are imported without a search for garbage.

    They are never searched later either, which takes a second at the end of a process otherwise.
    """
    gc.disable()
    try:
        return prepared(None)
    finally:
        gc.freeze()
        gc.enable()


def of_a_library(error: Exception) -> bool:
    """True for an error of Lightning or torch that a setting may have caused."""
    return misconfigured(error) or out_of_memory(error)
