"""What a technique's benchmark consists of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar


class Technique(ABC):
    """Ways to do the same thing, measured in some cases.

    `ways` names them, the plain way first and the package's last; `rate` says what a call's return value counts, for
    techniques that are compared by something a second instead of by seconds.
    """

    name: ClassVar[str]
    cases: ClassVar[tuple[str, ...]]
    ways: ClassVar[tuple[str, ...]]
    rate: ClassVar[str] = ""
    calls: ClassVar[int] = 5  # timed in each process, after one that warms up

    @abstractmethod
    def build(self, case: str, way: str) -> Callable[[], float]:
        """What is timed: a function that gives back the amount of work it did, 1 where that is always the same."""
