"""All pictures of the quickstart in the docs: docs/images and docs/quickstart.png, from the runs of `make quickstart`.

    python -m benchmarks.pictures [--runs runs/quickstart] [--docs docs]

The report is opened in a headless Chromium. The self-assessment is of the best checkpoint: 64 validation
questions, with 8 answers each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import quickstart_picture
from benchmarks.browser import Browser, browser
from nrt_lightning.callbacks.heat_map import NAME as HEAT_MAP
from nrt_lightning.callbacks.run_lines import read_lines, thinned
from nrt_lightning.callbacks.samples.heat_map_figure import draw, write
from nrt_lightning.tools.report import write_report

RUN, ASSESSED = Path("tensorboard", "nrt"), "self_assessment.jsonl"
QUESTIONS, LOOKS = 3, 9  # of the heat map


@dataclass(frozen=True)
class Shot:
    """One picture of a page."""

    name: str
    width: int = 1200
    dark: bool = False
    part: str | None = None  # a CSS selector
    height: int = 900


REPORT = (
    Shot("report_desktop", height=1500),
    Shot("report_dark", dark=True, height=1500),
    Shot("report_phone", width=390, height=1400),
    Shot("report_phone_dark", width=390, dark=True, height=1400),
    Shot("report_answers_dark", dark=True, part="#heat"),
    Shot("report_samples", part="#samples"),
    Shot("report_words", part="#words", height=1200),
    Shot("report_self_assessment", part="#calibration", height=700),
)


def assess(runs: Path, folder: Path) -> None:
    """Let the best checkpoint of the NRT run assess itself, and add what it finds to a copy of the log."""
    own = folder / "assessment"
    command = [
        "validate", "--config", "nrt:quickstart", f"--trainer.default_root_dir={own}",
        f"--ckpt_path={(runs / 'checkpoints' / 'best.ckpt').resolve()}",
        "--trainer.callbacks+=nrt_lightning.SelfAssessment", "--trainer.callbacks.rows=64",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "nrt_lightning", *command], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(next(own.rglob(ASSESSED)), folder / "runs" / RUN / ASSESSED)


def report(opened: Browser, runs: Path, folder: Path, page: Path) -> None:
    """Write a report, and take its pictures.

    Raises:
        RuntimeError: the page said something on the console, or is wider than the screen.
    """
    write_report([runs], page)
    for shot in REPORT:
        opened.show(page, shot.width, 900, dark=shot.dark)
        wide, said = opened.run("return document.documentElement.scrollWidth"), opened.messages()
        if wide != shot.width or said:
            raise RuntimeError(f"{shot.name}: {wide} of {shot.width} pixels wide; console: {said}")
        opened.picture(folder / f"{shot.name}.png", shot.part, shot.height)


def heat_map(runs: Path, file: Path) -> None:
    """Draw what `AnswerHeatMap` draws, from the samples of the NRT run."""
    samples = [line for line in read_lines(runs / RUN / "samples.jsonl")[0] if line["split"] == "val"]
    ids = list(dict.fromkeys(line["id"] for line in samples))[:QUESTIONS]
    write(draw(thinned([line for line in samples if line["id"] in ids], LOOKS - 1)), file)


def take(runs: Path, docs: Path) -> list[Path]:
    """Make all pictures.

    Args:
        runs: folder of the quickstart's runs.
        docs: folder for `quickstart.png` and `images`.
    """
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    quickstart_picture.main(["--runs", str(runs), "--png", str(docs / "quickstart.png")])
    heat_map(runs, images / HEAT_MAP)
    with tempfile.TemporaryDirectory() as temporary, browser() as opened:
        copied = shutil.copytree(runs, Path(temporary, "runs"), ignore=shutil.ignore_patterns("*.ckpt"))
        assess(runs, Path(temporary))
        report(opened, copied, images, Path(temporary, "report.html"))
    return [docs / "quickstart.png", images / HEAT_MAP, *(images / f"{shot.name}.png" for shot in REPORT)]


def main(arguments: list[str] | None = None) -> None:
    """Make the pictures and print where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/quickstart"), help="of the runs (%(default)s)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the docs (%(default)s)")
    options = parser.parse_args(arguments)
    for picture in take(options.runs, options.docs):
        print(f"{picture} {os.path.getsize(picture) // 1024} KiB")


if __name__ == "__main__":
    main()
