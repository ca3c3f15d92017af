"""The pictures of the docs are those that `make pictures` makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.pictures import HEAT_MAP, REPORT, RUN, heat_map

DOCS = Path(__file__).parents[2] / "docs"


def test_every_picture_is_made_by_the_command_and_small() -> None:
    made = {HEAT_MAP, *(f"{shot.name}.png" for shot in REPORT)}
    there = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert set(there) == made
    assert max(there.values()) < 250_000


def test_the_heat_map_is_drawn_from_samples(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / RUN).mkdir(parents=True)
    trace = {"text": "a trace", "logprobs": [-0.5, -0.1], "right": True}
    rows = [
        {"step": step, "split": "val", "id": "q", "question": "?", "answer_tokens": ["a", "b"],
         "baseline_logprobs": [-2.0, -1.0], "traces": [trace]} for step in range(20, 300, 20)
    ]  # fmt: skip
    (tmp_path / RUN / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    heat_map(tmp_path, tmp_path / HEAT_MAP)
    assert (tmp_path / HEAT_MAP).read_bytes().startswith(b"\x89PNG")
