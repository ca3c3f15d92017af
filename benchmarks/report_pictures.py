"""The pictures of docs/report.md, taken of a report in a headless Chromium.

python -m benchmarks.report_pictures [--runs runs/quickstart] [--folder docs/images]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.browser import browser
from nrt_lightning.tools.report import write_report


def take(runs: Path, folder: Path) -> list[Path]:
    """Write a report, open it, and take its pictures.

    Args:
        runs: folder of the runs.
        folder: for the pictures.

    Raises:
        RuntimeError: the page said something on the console, or is wider than the screen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "report_desktop": (1200, False, None, 1500),
        "report_dark": (1200, True, None, 1500),
        "report_phone": (390, False, None, 1400),
        "report_answers_dark": (1200, True, "#heat", 900),
        "report_samples": (1200, False, "#samples", 900),
        "report_words": (1200, False, "#words", 1200),
        "report_self_assessment": (1200, False, "#calibration", 700),
    }
    with tempfile.TemporaryDirectory() as temporary, browser() as opened:
        page = Path(temporary, "report.html")
        write_report([runs], page)
        for name, (width, dark, element, height) in pictures.items():
            opened.show(page, width, 900, dark=dark)
            wide, said = opened.run("return document.documentElement.scrollWidth"), opened.messages()
            if wide != width or said:
                raise RuntimeError(f"{name}: {wide} of {width} pixels wide; console: {said}")
            opened.picture(folder / f"{name}.png", element, height)
    return [folder / f"{name}.png" for name in pictures]


def main(arguments: list[str] | None = None) -> None:
    """Take the pictures and print where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/quickstart"), help="of the runs (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"), help="of the pictures (%(default)s)")
    options = parser.parse_args(arguments)
    for picture in take(options.runs, options.folder):
        print(picture)


if __name__ == "__main__":
    main()
