"""The trained model that the options of a command name, and the device it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from nrt_lightning.cli.trained import find_trained, read_trained
from nrt_lightning.errors import InputError
from nrt_lightning.tools.chat import Speaker, read_speaker, speaker_of

HELP = {
    "model": "export of a run, hub id or embedded base; or name a run by --config and --checkpoint",
    "--config": "configs of the run, as for fit; --trainer..., --model... and --data... change them",
    "--checkpoint": "path of a checkpoint, or auto, best or last of the run; null for its best",
    "--base": "model that the run started from, if it has moved",
    "--allow": "import paths of classes of yours that a checkpoint's settings may build, separated by commas",
    "--trust_remote_code": "run code that comes with the base of a checkpoint; its own setting does not count",
    "--marker": "text of the marker, for models that are no export; null for the usual one",
    "--device": "cpu, cuda or cuda:N; null for cuda if there is one",
}


def add_speaker_options(parser: Any) -> None:
    """Add the options that name a model to a parser."""
    parser.add_argument("model", type=str | None, nargs="?", default=None, help=HELP["model"])
    parser.add_argument("--config", action="config", help=HELP["--config"])
    for name in ("--checkpoint", "--base", "--marker", "--device"):
        parser.add_argument(name, type=str | None, default=None, help=HELP[name])
    parser.add_argument("--allow", type=list[str] | str, default="", help=HELP["--allow"])
    parser.add_argument("--trust_remote_code", type=bool, default=False, help=HELP["--trust_remote_code"])


def speaker_from(command: str, given: Any, run: Sequence[str]) -> Speaker:
    """The model that the options name.

    Args:
        command: for errors.
        given: options of the command.
        run: options of `fit` that name a run.

    Raises:
        InputError: they name none, or two.
    """
    named = given.checkpoint is not None or bool(run)
    if (given.model is not None) == named:
        both = "both a model and a run are named" if named else "no model is named"
        raise InputError(
            f"{command}: {both}. Give a directory or hub id, or --config=FILE of a run, or --checkpoint=PATH."
        )
    transformers.utils.logging.disable_progress_bar()
    path = find_trained(given.checkpoint, run)
    if path is None:
        for name, nothing in (("base", None), ("allow", ""), ("trust_remote_code", False)):
            if given[name] != nothing:
                raise InputError(f"{command}: --{name}={given[name]!r} belongs to --checkpoint. Remove it.")
        return read_speaker(given.model, given.marker)
    if given.marker is not None:
        raise InputError(f"{command}: --marker={given.marker!r}, but a checkpoint has its own. Remove it.")
    trained = read_trained(path, given.base, given.allow, trust_remote_code=given.trust_remote_code)
    return speaker_of(trained.load(), trained.record)


def device_of(name: str | None) -> torch.device:
    """The device to run on.

    Raises:
        InputError: there is none of this name.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # as no tensor without memory can
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device={name!r}: torch has no such device here. Use cpu or cuda.") from error
    return device
