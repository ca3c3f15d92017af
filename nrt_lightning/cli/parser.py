"""The argument parsers of all commands: configs by name, one line for an error, no abbreviated options."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from typing_extensions import override

from nrt_lightning.cli.files_given import check_files
from nrt_lightning.cli.suggestions import explain
from nrt_lightning.configs import resolve

SILENT = logging.getLogger("nrt_lightning.cli.silent")  # without it, a parser makes hundreds of records for nobody
SILENT.setLevel(logging.CRITICAL + 1)


def with_configs(args: Sequence[str]) -> list[str]:
    """Arguments with the path of every config that is given by name.

    >>> with_configs(["fit", "--config", "mine.yaml", "--note", "nrt:x"])
    ['fit', '--config', 'mine.yaml', '--note', 'nrt:x']
    """
    found: list[str] = []
    for word in args:
        if found and found[-1] in ("--config", "-c"):
            word = resolve(word)
        elif word.startswith("--config="):
            word = "--config=" + resolve(word.removeprefix("--config="))
        found.append(word)
    return found


class PlainParser(ArgumentParser):
    """Parser of a command that has its own options."""

    takes_classes = False  # for `--data` and `--model`; their values may then be files of settings

    def __init__(self, *args: Any, **settings: Any) -> None:
        defaults: dict[str, Any] = {"prog": "nrt-lightning", "allow_abbrev": False, "logger": SILENT}
        super().__init__(*args, **defaults | settings)
        self.words: list[str] = []  # that are parsed

    @override
    def parse_args(self, args: Any = None, *more: Any, **settings: Any) -> Any:
        words = with_configs(sys.argv[1:] if args is None else args)
        if "namespace" in settings:  # the parser of a part, which is given a null as the text None
            words = [re.sub(r"=None$", "=null", word) for word in words]
        check_files(words, classes=self.takes_classes)
        for parser in (self, *self.inner_parsers()):
            parser.words = words if self.takes_classes else []
        return super().parse_args(words, *more, **settings)

    def inner_parsers(self) -> list[Any]:
        """The parsers of subcommands."""
        return list(self._subcommands_action.choices.values()) if self._subcommands_action else []

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with one line: the setting, its value, the nearest name."""
        if not self.exit_on_error:
            super().error(message, ex)  # the parser of a part, whose message becomes one of several
        actions = [action for parser in (self, *self.inner_parsers()) for action in parser._actions]
        types = {action.dest: getattr(action, "_typehint", None) for action in actions}
        sys.stderr.write(f"error: {explain(message, list(types), self.words, types)}\n")
        self.exit(2)
