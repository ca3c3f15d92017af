"""Records of data files, as they were written: the digits of numbers, and columns that stand twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typing_extensions import override

Records = Iterator[tuple[str, dict[str, Any]]]  # origin and record


class WrittenFloat(float):
    """A float of a JSON file, with the digits that the file holds: 3.10 and not 3.1."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        """The float of a text."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    @override
    def __str__(self) -> str:
        return self.text


class Repeated(dict[str, Any]):
    """A record in which columns stand twice; it holds the last value of each."""

    def __init__(self, record: Any, names: Iterable[str]) -> None:
        super().__init__(record)
        self.names = tuple(dict.fromkeys(names))


def repeated_columns(record: Any) -> tuple[str, ...]:
    """Names of the columns that stand twice in a record."""
    return record.names if isinstance(record, Repeated) else ()


def from_pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A record of its columns."""
    record = dict(pairs)
    return record if len(record) == len(pairs) else Repeated(record, twice([name for name, _ in pairs]))


def twice(names: Sequence[str]) -> list[str]:
    """Names that are in a list more than once."""
    return [name for name, count in Counter(names).items() if count > 1]
