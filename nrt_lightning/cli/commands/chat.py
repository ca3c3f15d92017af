"""`nrt-lightning chat`: ask a trained model questions, and read its reasoning and its answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.cli.speakers import add_speaker_options, device_of, speaker_from
from nrt_lightning.cli.trained import split_options
from nrt_lightning.errors import InputError
from nrt_lightning.tools.chat import Answerer, ChatSettings, Display, Speaker

QUESTION = "answer this question and exit; - for all of standard input as one question"
STDIN = "-"


def main(args: list[str]) -> None:
    """Answer questions until there are no more.

    Args:
        args: options of the command, and those of `fit` that name a run.
    """
    own, run = split_options(args)
    parser = PlainParser(prog="nrt-lightning chat", description=(__doc__ or "").splitlines()[0])
    add_speaker_options(parser)
    parser.add_argument("--question", type=str | None, default=None, help=QUESTION)
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
        speaker = speaker_from("chat", given, run)
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
