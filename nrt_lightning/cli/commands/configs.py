"""`nrt-lightning configs`: list the configs of this package, or print one."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.configs import PREFIX, names, resolve, summary


def main(args: list[str]) -> None:
    """Print one line per config, or the text of one config.

    Args:
        args: options of the command.
    """
    parser = PlainParser(
        prog="nrt-lightning configs",
        description="List the configs of this package, for --config nrt:NAME, or print one.",
    )
    parser.add_argument("name", nargs="?", type=str, help="config to print, such as nrt:quickstart")
    name = parser.parse_args(args).name
    if name is not None:
        path = resolve(PREFIX + name.removeprefix(PREFIX), "configs")
        print(Path(path).read_text(encoding="utf-8"), end="")
        return
    width = max(len(PREFIX + other) for other in names()) + 2
    room = max(shutil.get_terminal_size((120, 24)).columns, width + 40) - width
    for other in names():
        print(f"{PREFIX + other:<{width}}{textwrap.shorten(summary(other), room, placeholder=' ...')}".rstrip())
