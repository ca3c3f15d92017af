"""The README's picture shows the curves and figures that the quickstart's runs left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quickstart_picture import NAMES, Run, main


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of 10 steps with a validation after every fifth."""
    for name in NAMES:
        rows = [{"step": step, "train/loss": 1.0} for step in range(1, 11)]
        rows += [{"step": step, "val/exact_match": value} for step, value in ((5, 0.25), (10, 0.5))]
        file = tmp_path / "tensorboard" / name / "metrics.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = {"exact_match": 0.75, "cpu_seconds": 20.0}
    (tmp_path / "results.json").write_text(json.dumps(dict.fromkeys(NAMES, figures)))
    return tmp_path


def test_a_run_is_read_with_its_seconds_at_each_validation(runs: Path) -> None:
    assert Run.read(runs, "nrt") == Run("nrt", steps=10, seconds=[10.0, 20.0], exact_match=[0.25, 0.5], final=0.75)


def test_the_picture_is_written(runs: Path) -> None:
    main(["--runs", str(runs), "--png", str(runs / "picture.png")])
    assert (runs / "picture.png").read_bytes().startswith(b"\x89PNG")
