"""All pictures of the quickstart in the docs: docs/images and docs/quickstart.png, from the runs of `make quickstart`.

    python -m benchmarks.pictures [--runs runs/quickstart] [--docs docs]

The report and TensorBoard are opened in a headless Chromium. The self-assessment is of the best checkpoint: 64
validation questions, with 8 answers each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import quickstart_picture
from benchmarks.browser import Browser, browser, serving
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
    view: str = ""  # the rest of the address


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

DASHBOARD = (
    Shot("tensorboard_desktop", 1400, height=1100, view="#timeseries"),
    Shot("tensorboard_dark", 1400, dark=True, height=1100, view="?darkMode=true#timeseries"),
    Shot("tensorboard_phone", 390, height=1800, view="#timeseries"),  # which TensorBoard makes 980 wide
    Shot("tensorboard_charts", 1400, height=1100, view="#custom_scalars"),
    Shot("tensorboard_samples", 1400, height=1100, view="#text"),
)
PATIENCE = 60  # seconds for a page of TensorBoard


def assess(runs: Path, copied: Path, own: Path) -> None:
    """Let the best checkpoint of the NRT run assess itself, and add what it finds to a copy of the log.

    Args:
        runs: folder of the quickstart's runs.
        copied: of their copies.
        own: for what the assessment writes.
    """
    command = [
        "validate", "--config", "nrt:quickstart", f"--trainer.default_root_dir={own}",
        f"--ckpt_path={(runs / 'checkpoints' / 'best.ckpt').resolve()}",
        "--trainer.callbacks+=nrt_lightning.SelfAssessment", "--trainer.callbacks.rows=64",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "nrt_lightning", *command], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(next(own.rglob(ASSESSED)), copied / RUN / ASSESSED)


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


def tensorboard(logs: Path, folder: Path) -> AbstractContextManager[str]:
    """The address of a TensorBoard that shows the logs in a folder, by their path in another one."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logs.relative_to(folder)}", "--load_fast=false"]
    return serving(command, "/data/runs", lambda runs: runs.strip() != b"[]", folder)  # all runs are read at once


def dashboard(opened: Browser, address: str, folder: Path) -> None:
    """Take the pictures of TensorBoard, each once it has not changed for some seconds."""
    for shot in DASHBOARD:
        opened.show("about:blank")  # the next address may differ in its last part only
        opened.show(f"{address}/{shot.view}", shot.width, shot.height, dark=shot.dark)
        file, before, end = folder / f"{shot.name}.png", b"", time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(4)
            opened.picture(file, height=shot.height)
            if file.read_bytes() == before:
                break
            before = file.read_bytes()


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
        folder = Path(temporary)
        copied = shutil.copytree(runs, folder / "runs" / "quickstart", ignore=shutil.ignore_patterns("*.ckpt"))
        assess(runs, copied, folder / "assessment")
        report(opened, copied, images, folder / "report.html")
        with tensorboard(copied / RUN.parent, folder) as address:
            dashboard(opened, address, images)
    return [docs / "quickstart.png", images / HEAT_MAP, *(images / f"{shot.name}.png" for shot in REPORT + DASHBOARD)]


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
