"""`nrt-lightning chat`: ask a trained model questions, and read its reasoning and its answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

import torch
import transformers

from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.cli.trained import find_trained, read_trained, split_options
from nrt_lightning.errors import InputError
from nrt_lightning.tools.chat import Answerer, ChatSettings, Display, Speaker, read_speaker, speaker_of

HELP = {
    "model": "export of a run, hub id or embedded base; or name a run by --config and --checkpoint",
    "--config": "configs of the run, as for fit; --trainer..., --model... and --data... change them",
    "--checkpoint": "path of a checkpoint, or best or last of the run; null for its best",
    "--base": "model that the run started from, if it has moved",
    "--allow": "import paths of classes of yours that a checkpoint's settings may build, separated by commas",
    "--trust_remote_code": "run code that comes with the base of a checkpoint; its own setting does not count",
    "--marker": "text of the marker, for models that are no export; null for the usual one",
    "--question": "answer this question and exit; - for all of standard input as one question",
    "--device": "cpu, cuda or cuda:N; null for cuda if there is one",
}
STDIN = "-"


def main(args: list[str]) -> None:
    """Answer questions until there are no more.

    Args:
        args: options of the command, and those of `fit` that name a run.
    """
    own, run = split_options(args)
    parser = PlainParser(prog="nrt-lightning chat", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=str | None, nargs="?", default=None, help=HELP["model"])
    parser.add_argument("--config", action="config", help=HELP["--config"])
    for name in ("--checkpoint", "--base", "--marker", "--question", "--device"):
        parser.add_argument(name, type=str | None, default=None, help=HELP[name])
    parser.add_argument("--allow", type=list[str] | str, default="", help=HELP["--allow"])
    parser.add_argument("--trust_remote_code", type=bool, default=False, help=HELP["--trust_remote_code"])
    parser.add_class_arguments(ChatSettings)
    given = parser.parse_args(own)
    settings = ChatSettings(**{name: given[name] for name in vars(ChatSettings())})
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # rather than fail in the middle of an answer
    display = Display(sys.stdout)
    try:
        talk(given, settings, run, display)
    except KeyboardInterrupt:
        display.leave()
        if given.question is not None:
            sys.exit(130)
    except BrokenPipeError:  # the reader has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def talk(given: Any, settings: ChatSettings, run: Sequence[str], display: Display) -> None:
    """Read the model, then answer.

    Args:
        given: options of the command.
        settings: of the sampling.
        run: options of `fit` that name a run.
        display: where the answers appear.
    """
    question = given.question
    if question is not None and not (question := sys.stdin.read() if question == STDIN else question).strip():
        raise InputError("--question is empty. Give a question.")
    device = device_of(given.device)
    with redirect_stdout(sys.stderr):  # which checkpoint is read, is no part of an answer
        speaker = speaker_from(given, run)
    speaker.policy.to(device)
    answerer = Answerer(speaker, settings, display)
    if question is not None:
        answerer.ask(question.strip())
        return
    if sys.stdin.isatty():
        display.line(greeting(speaker))
    asked = False
    for text in questions(display):
        asked = True
        try:
            answerer.ask(text)
        except InputError as error:  # of this question
            display.note(str(error))
        display.line()
    if not asked and not sys.stdin.isatty():
        raise InputError("standard input holds no question. Write one a line, or give --question.")


def speaker_from(given: Any, run: Sequence[str]) -> Speaker:
    """The model that the options name.

    Raises:
        InputError: they name none, or two.
    """
    named = given.checkpoint is not None or bool(run)
    if (given.model is not None) == named:
        both = "both a model and a run are named" if named else "no model is named"
        raise InputError(f"chat: {both}. Give a directory or hub id, or --config=FILE of a run, or --checkpoint=PATH.")
    transformers.utils.logging.disable_progress_bar()
    path = find_trained(given.checkpoint, run)
    if path is None:
        if given.base is not None:
            raise InputError(f"chat: --base={given.base!r} belongs to --checkpoint. Remove it.")
        return read_speaker(given.model, given.marker)
    if given.marker is not None:
        raise InputError(f"chat: --marker={given.marker!r}, but a checkpoint has its own. Remove it.")
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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device={name!r}: torch has no such device here. Use cpu or cuda.") from error
    return device


def greeting(speaker: Speaker) -> str:
    """What is said before the first question."""
    policy = speaker.policy
    where = f"{policy.source}, {str(policy.dtype).removeprefix('torch.')} on {policy.device.type}"
    return f"{where}. Each question is answered by itself, without the earlier ones. Ctrl-D ends.\n"


def questions(display: Display) -> Iterator[str]:
    """The questions that are typed, or the lines of a pipe; empty lines are left out."""
    typed = sys.stdin.isatty()
    if typed:
        with suppress(ImportError):
            import readline  # noqa: F401  (edits lines, and remembers them)
    while True:
        try:
            text = input("question: ") if typed else sys.stdin.readline()
        except EOFError:
            display.line()
            return
        if not typed and not text:
            return
        if text.strip():
            if not typed:
                display.line(f"question: {text.strip()}")
            yield text.strip()
