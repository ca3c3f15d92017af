"""All callbacks that show something see the same in two processes as in one, and rank zero alone writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import looking
import pytest
from forked import run_forked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TIMES = {"seconds"}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def alike(one: Any, other: Any, place: str = "") -> None:
    """Numbers are equal up to rounding, and all else is equal."""
    if isinstance(one, dict):
        assert set(one) == set(other), place
        for name in set(one) - TIMES:
            alike(one[name], other[name], f"{place}/{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            alike(first, second, f"{place}/{index}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4), place
    else:
        assert one == other, place


def test_two_processes_show_what_one_does(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    looking.fit(1, one)
    printed = run_forked(looking.__file__, two)
    figures = [json.loads(path.read_text()) for path in (one / "0.json", two / "0.json", two / "1.json")]
    looked = [
        {name: value for name, value in found.items()
         if name.startswith(("val/", "self_assessment/", "correctness/", "sums/"))} for found in figures
    ]  # fmt: skip
    assert {name.split("/")[0] for name in looked[0]} == {"val", "self_assessment", "correctness", "sums"}
    alike(looked[0], looked[1])
    assert looked[1] == looked[2]
    assert sorted(path.name for path in (two / "log").iterdir() if "tfevents" not in path.name) == sorted(
        path.name for path in (one / "log").iterdir() if "tfevents" not in path.name
    )
    assert len(list((two / "log").glob("events.*"))) == len(list((one / "log").glob("events.*"))), "rank zero alone"
    assessed = [lines(folder / "log" / "self_assessment.jsonl") for folder in (one, two)]
    alike(*assessed)
    assert [len(line["rows"]) for line in assessed[1]] == [3, 3]
    samples = [
        [row for row in lines(folder / "log" / "samples.jsonl") if row["split"] == "val"] for folder in (one, two)
    ]
    alike(*samples)
    assert [row["step"] for row in samples[1]] == [1] * 4 + [2] * 4
    counts = [[(row["step"], row["prompts"], row["rollouts"]) for row in lines(folder / "log" / "metrics.jsonl")]
              for folder in (one, two)]  # fmt: skip
    assert counts[0] == counts[1]
    assert counts[1][-1] == (2, 8, 16)
    events = EventAccumulator(str(two / "log")).Reload()
    assert [image.step for image in events.Images("answer_heat_map")] == [16]
    pages = [(folder / "report.html").read_text() for folder in (one, two)]
    assert [page.count("<html") for page in pages] == [1, 1]
    assert "".join(printed).count("report: ") == 1
