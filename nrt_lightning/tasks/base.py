"""Base class of generated tasks: rows from a seed, and disjoint splits."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import override

from nrt_lightning.data.sources import QASource
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row

SPLITS = {"corpus": 0.7, "train": 0.15, "validation": 0.075, "test": 0.075}
"""Fraction of all problems in each split; `corpus` holds those of the base model's pretraining text."""


def split_by_hash(text: str) -> str:
    """The split that contains a text, chosen by its hash.

    Args:
        text: the part of a problem that keeps similar problems in one split.

    Example:
        >>> split_by_hash("a4b*2c+2d+3") in SPLITS
        True
    """
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    position = int.from_bytes(digest, "big") / 2**32
    for name, fraction in SPLITS.items():
        position -= fraction
        if position < 0:
            return name
    return "test"  # reached only if the fractions do not sum to exactly 1


@dataclass
class Problem:
    """A generated question and its answer."""

    question: str
    answer: str
    checks: tuple[str, ...] = ()  # pieces that a correct answer contains; empty if the whole answer counts


@dataclass
class MadeRows(QASource):
    """Rows of a generated task; a subclass implements `draw`.

    Rows are distinct and depend on the seed alone; a larger `size` only appends rows.

    Args:
        split: the split of the problems.
        size: number of rows.
        seed: seed of the sampling.
    """

    task: ClassVar[str]  # prefix of the rows' ids
    max_rows: ClassVar[int] = 5000  # with more, sampling distinct rows becomes slow

    split: Literal["train", "validation", "test"] = "train"
    size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        name, known = type(self).__name__, [name for name in SPLITS if name != "corpus"]
        if self.split not in known:
            raise InputError(f"{name}(split={self.split!r}): no such split.{nearest(self.split, known)}")
        if not 1 <= self.size <= self.max_rows:
            raise InputError(f"{name}(size={self.size}): out of range. Give a size from 1 to {self.max_rows}.")

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem:
        """Sample a problem of the split."""

    @override
    def rows(self) -> list[Row]:
        rng = random.Random(f"{self.task} {self.split} {self.seed}")
        problems: dict[str, Problem] = {}  # by question: keeps the order and drops duplicates
        while len(problems) < self.size:
            problem = self.draw(rng)
            problems[problem.question] = problem
        return [
            Row(
                id=f"{self.task}-{self.split}-{self.seed}-{index}",
                messages=[{"role": "user", "content": problem.question}],
                answer=problem.answer,
                origin=f"{type(self).__name__}({self.split!r}, seed={self.seed}):{index}",
                checks=problem.checks,
            )
            for index, problem in enumerate(problems.values())
        ]
