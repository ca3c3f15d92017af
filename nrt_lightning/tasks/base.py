"""What tasks made in code share: rows drawn from a seed, and splits that never meet."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from nrt_lightning.data.sources import QASource
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row

SHARES = {"corpus": 0.7, "train": 0.15, "validation": 0.075, "test": 0.075}
"""Which share of all problems belongs to whom; `corpus` is what the base model may have read."""


def split_by_hash(text: str) -> str:
    """The split that a text belongs to, decided by its hash.

    Args:
        text: what two problems must share to be alike.

    Example:
        >>> split_by_hash("a4b*2c+2d+3") in SHARES
        True
    """
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    place = int.from_bytes(digest, "big") / 2**32
    for name, share in SHARES.items():
        place -= share
        if place < 0:
            return name
    return "test"  # only rounding of the shares' sum leads here


@dataclass
class Problem:
    """A question and its answer, as a task draws them."""

    question: str
    answer: str
    checks: tuple[str, ...] = ()  # pieces that make an answer right, where not all of it counts


@dataclass
class MadeRows(QASource):
    """Rows of a task made in code; a subclass implements `draw`.

    Rows follow from the seed alone, are distinct, and a larger `size` only appends to a smaller one.

    Args:
        split: which problems.
        size: number of rows.
        seed: of the draw.
    """

    task: ClassVar[str]  # begins the rows' ids
    max_rows: ClassVar[int] = 5000  # beyond this, drawing distinct rows becomes slow

    split: Literal["train", "validation", "test"] = "train"
    size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        name, known = type(self).__name__, [name for name in SHARES if name != "corpus"]
        if self.split not in known:
            raise InputError(f"{name}(split={self.split!r}): no such split.{nearest(self.split, known)}")
        if not 1 <= self.size <= self.max_rows:
            raise InputError(f"{name}(size={self.size!r}): choose a size from 1 to {self.max_rows}.")

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem:
        """A problem of the split."""

    def rows(self) -> list[Row]:
        """The rows, in the order drawn."""
        rng = random.Random(f"{self.task} {self.split} {self.seed}")
        drawn: dict[str, Problem] = {}  # by question; a dict keeps the order and refuses doubles
        while len(drawn) < self.size:
            problem = self.draw(rng)
            drawn[problem.question] = problem
        return [
            Row(
                id=f"{self.task}-{self.split}-{self.seed}-{index}",
                messages=[{"role": "user", "content": problem.question}],
                answer=problem.answer,
                origin=f"{type(self).__name__}({self.split!r}, seed={self.seed}):{index}",
                checks=problem.checks,
            )
            for index, problem in enumerate(drawn.values())
        ]
