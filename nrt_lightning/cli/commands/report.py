"""`nrt-lightning report`: one HTML page about runs: verdict, curves, samples, settings."""

from __future__ import annotations

from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.tools.report import write_report


def main(args: list[str]) -> None:
    """Write the page and print what is not in it, and its path.

    Args:
        args: options of the command.
    """
    parser = PlainParser(
        prog="nrt-lightning report",
        description="Write one HTML page about runs, which opens in a browser without network.",
    )
    parser.add_argument("--config", action="config", help="YAML file with these options")
    parser.add_argument("runs", nargs="+", type=str, help="folders of runs (trainer.default_root_dir) or of their logs")
    parser.add_argument("--output", type=str, default="report.html", help="file to write; an existing one is replaced")
    options = parser.parse_args(args)
    for note in write_report(options.runs, options.output):
        print(printable(note))
    print(printable(f"report: {options.output}"))


def printable(text: str) -> str:
    r"""A text without the parts of file names that are no characters.

    >>> printable("runs/\udcff")
    'runs/\\udcff'
    """
    return text.encode("utf-8", "backslashreplace").decode()
