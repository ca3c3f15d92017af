"""Answers' log-probs in one file per process (`models/references/answer_cache.py`) against a file per batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file

from benchmarks.techniques.technique import Technique
from nrt_lightning.models.references.answer_cache import AnswerCache

BATCHES, ROWS, TOKENS = 1000, 4, 64


class FileCache:
    """The plain way: a file per batch, and a look at all names for every batch that may be in another's file."""

    def __init__(self, directory: str) -> None:
        self.directory, self.read = Path(directory), set[str]()

    def refresh(self) -> None:
        for path in sorted(self.directory.glob("*.safetensors")):
            if path.name not in self.read:
                load_file(path)
                self.read.add(path.name)

    def add(self, values: dict[str, torch.Tensor]) -> None:
        name = f"{next(iter(values))}.safetensors"
        save_file(values, self.directory / name)
        self.read.add(name)


class Answers(Technique):
    name: ClassVar[str] = "answer_cache"
    cases: ClassVar[tuple[str, ...]] = (f"{BATCHES:,} batches of {ROWS} new rows",)
    ways: ClassVar[tuple[str, ...]] = ("a file per batch", "appended to one")
    calls: ClassVar[int] = 3

    def build(self, case: str, way: str) -> Callable[[], float]:
        kind = FileCache if way == self.ways[0] else AnswerCache

        def fill() -> float:
            with tempfile.TemporaryDirectory() as directory:
                cache = kind(directory)
                for batch in range(BATCHES):
                    cache.refresh()
                    cache.add({f"{batch:06}-{row}": torch.zeros(TOKENS) for row in range(ROWS)})
            return 1

        return fill
