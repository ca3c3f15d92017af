"""The pictures of the docs are those that `make pictures` makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.pictures import DASHBOARD, HEAT_MAP, REPORT, RUN, heat_map

DOCS = Path(__file__).parents[2] / "docs"


def test_every_picture_is_made_by_the_command_shown_and_small() -> None:
    images = {f"images/{name}" for name in (HEAT_MAP, *(f"{shot.name}.png" for shot in REPORT + DASHBOARD))}
    there = {path.relative_to(DOCS).as_posix(): path.read_bytes() for path in DOCS.rglob("*.png")}
    assert set(there) == images | {"quickstart.png", "growth.png"}
    assert max(map(len, there.values())) < 210_000
    assert len(set(there.values())) == len(there), "none stands there twice"
    pages = "".join(page.read_text() for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md")))
    assert [name for name in there if f"{name})" not in pages] == []


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
