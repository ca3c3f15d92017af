"""One HTML page from runs: data as JSON in a script element, styles and scripts beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.files import replaced
from nrt_lightning.metrics.logged_values import describe
from nrt_lightning.tools.report.calibration import calibration
from nrt_lightning.tools.report.charts import chart_groups, meanings
from nrt_lightning.tools.report.compared import compared
from nrt_lightning.tools.report.history import POINTS
from nrt_lightning.tools.report.lines import text
from nrt_lightning.tools.report.private import private, without_paths
from nrt_lightning.tools.report.runs import Run, find_runs
from nrt_lightning.tools.report.samples import fit, sample_of
from nrt_lightning.tools.report.verdict import verdict
from nrt_lightning.tools.report.words import vocabulary

ASSETS = Path(__file__).parent / "assets"
STYLES = ("uPlot.min.css", "page.css", "parts.css")
SCRIPTS = ("uPlot.iife.min.js", "js/dom.js", "js/charts.js", "js/heat.js", "js/samples.js", "js/words.js",
           "js/calibration.js", "js/tables.js", "js/page.js")  # fmt: skip
DOCTYPE = b"<!doctype html"
LARGEST = 3_000_000  # bytes of the page
CURVES = 200  # of a run: more are not looked at
FOR_SAMPLES = 1_600_000  # bytes, of all runs


def write_report(folders: Sequence[str | Path], output: str | Path) -> list[str]:
    """Write one HTML page about runs, which needs no network and no other file.

    Args:
        folders: of runs, or of several runs.
        output: the file to write. It is replaced at once.

    Returns:
        What was left out or could not be read, a line each.

    Raises:
        InputError: there is no run, or the file cannot be written.
    """
    path = Path(os.path.expanduser(output))
    check_replaceable(path)
    runs, notes = find_runs(folders)
    html, data = page(runs, notes)
    try:
        with replaced(path, errors="replace", newline="") as file:
            file.write(html)
    except OSError as error:
        raise InputError(f"report: output={path} cannot be written ({error.strerror}). Give another.") from error
    return notes + [f"{run['name']}: {note}" for run in data["runs"] for note in run["notes"]]


def check_replaceable(path: Path) -> None:
    """Check that a file may be written, before anything is read.

    Raises:
        InputError: something else is there, such as a log.
    """
    try:
        if not os.path.lexists(path):
            return
        if not path.is_file():
            raise InputError(f"report: output={path} cannot be written: it is no file. Give another.")
        with path.open("rb") as file:
            start = file.read(len(DOCTYPE))
    except OSError as error:
        raise InputError(f"report: output={path} cannot be written ({error.strerror}). Give another.") from error
    if start and start.lower() != DOCTYPE:
        raise InputError(f"report: output={path} is no HTML page, and is not replaced. Give another.")


def page(runs: Sequence[Run], notes: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The page as text, and the data in it, smaller than `LARGEST`: samples and points are left out until it is.

    Args:
        runs: at least one.
        notes: about runs that are not in it.
    """
    budget = FOR_SAMPLES // len(runs)
    html = filled(data := content(runs, notes, budget))
    while len(html.encode("utf-8", "replace")) > LARGEST and budget > 1000:
        budget //= 2
        html = filled(data := content(runs, notes, budget))
    points = POINTS
    while len(html.encode("utf-8", "replace")) > LARGEST and points > 10:
        points //= 2
        html = filled(data := content(runs, notes, budget, points))
    return html, data


def filled(data: dict[str, Any]) -> str:
    """The template with its styles, scripts and data."""
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    parts = {
        "STYLES": "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in STYLES),
        "SCRIPTS": "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "DATA": script_safe(data),
    }
    before, *rest = template.split("{{")
    return before + "".join(parts[name] + after for name, _, after in (part.partition("}}") for part in rest))


def script_safe(data: Any) -> str:
    """JSON that no text in it can end a script element with.

    >>> script_safe({"a": "</script><!--"})
    '{"a":"\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    found = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        found = found.replace(character, f"\\u{ord(character):04x}")
    return found


def content(runs: Sequence[Run], notes: Sequence[str], budget: int, points: int = POINTS) -> dict[str, Any]:
    """All that the page shows.

    Args:
        runs: of the page.
        notes: about runs that are not in it.
        budget: bytes for the samples of a run.
        points: of a curve.
    """
    logged = dict.fromkeys(name for run in runs for name in run.history.series)
    names = sorted(logged, key=lambda name: describe(name) is None)[:CURVES]  # those that are known come first
    return {
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": installed(),
        "notes": [without_paths(note) for note in notes],
        "compared": compared(runs),
        "groups": chart_groups(names),
        "meanings": meanings(names),
        "runs": [one(run, budget, points, names) for run in runs],
    }


def installed() -> str:
    """The version of this package; empty if it runs from a folder that is not installed."""
    try:
        return version("nrt-lightning")
    except PackageNotFoundError:
        return ""


def one(run: Run, budget: int, points: int, names: Sequence[str]) -> dict[str, Any]:
    """What the page shows of a run."""
    headline, findings = verdict(run.history, run.facts)
    read = [sample for row in run.samples if (sample := sample_of(row)) is not None]
    samples = fit(read, budget)
    for sample in samples:
        sample["id"] = without_paths(sample["id"])
    notes = list(run.notes)
    if other := len(run.samples) - len(read):
        notes.append(
            f"{other:,} {'lines' if other > 1 else 'line'} of samples.jsonl left out, without a step or traces"
        )
    if left := len(read) - len(samples):
        notes.append(f"{left:,} of {len(read):,} samples are left out, so that the page stays small; all are in "
                     "samples.jsonl")  # fmt: skip
    if more := len(run.history.series.keys() - set(names)):
        notes.append(f"{more:,} of {len(run.history.series):,} logged values are left out; all are in "
                     f"{run.history.source}")  # fmt: skip
    facts = run.facts
    return {
        "name": run.name,
        "module": text(facts.get("module"))[:80],
        "started": text(facts.get("started"))[:80],
        "headline": asdict(headline),
        "findings": [asdict(finding) for finding in findings],
        "curves": run.history.thinned(names, points),
        "samples": samples,
        "words": vocabulary(read),
        "calibration": calibration(run.looks),
        "results": run.results,
        "settings": private(facts["settings"]) if isinstance(facts.get("settings"), dict) else {},
        "environment": private(facts["environment"]) if isinstance(facts.get("environment"), dict) else {},
        "notes": [without_paths(note) for note in notes],
    }
