"""Rows of the splits of a `QADataModule`: from arguments to sources, and from sources to rows."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nrt_lightning.data.formats import RowFormat
from nrt_lightning.data.sampler import shuffled
from nrt_lightning.data.sources import FileSource, MemorySource, QASource
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row

DATASET_SPLITS = {"train": "train", "val": "validation", "test": "test", "predict": "test"}


def as_source(given: Any, split: str) -> QASource | str | None:
    """The argument of a split as a source, or as the text of a path or hub name.

    Args:
        given: a source, a path, a hub name, records, a mapping of splits to records, or None.
        split: `train`, `val`, `test` or `predict`.

    Raises:
        InputError: the argument is none of these, or has no such split.
    """
    if given is None or isinstance(given, QASource | str):
        return given
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    if isinstance(given, Mapping):
        name = DATASET_SPLITS[split]
        if name not in given:
            raise InputError(
                f"data.{split}: no split '{name}'.{nearest(name, map(str, given))} Give one of its splits."
            )
        given = given[name]
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        return MemorySource(given, f"data.{split}")
    raise InputError(f"data.{split} is a {type(given).__name__}. Give a path, a hub name, a list of dicts or a source.")


def check_format(row_format: RowFormat | None, sources: Mapping[str, QASource | str | None]) -> None:
    """Check that some source uses `data.format`.

    Raises:
        InputError: all sources have formats of their own.
    """
    given = {split: source for split, source in sources.items() if source is not None}
    if row_format is None or not given or any(uses_format(source) for source in given.values()):
        return
    own = ", ".join(f"data.{split} ({type(source).__name__})" for split, source in given.items())
    raise InputError(
        f"data.format={type(row_format).__name__} is not used: {own} reads its rows by itself. "
        "Remove data.format, or the format of the source."
    )


def uses_format(source: QASource | str) -> bool:
    """Whether a source reads its rows by `data.format`."""
    return isinstance(source, str) or (isinstance(source, FileSource | MemorySource) and source.format is None)


@dataclass
class Splits:
    """The rows of all splits.

    Args:
        sources: of each split.
        format: of sources that have none.
        max_rows: use only the first rows of a split; None for all.
        held_out: rows of `train` that are used for `val` and `test` instead: a number, or a fraction below 1.
        seed: of the choice of these rows.
    """

    sources: Mapping[str, QASource | str | None]
    format: RowFormat | None
    max_rows: Mapping[str, int | None]
    held_out: Mapping[str, float]
    seed: int = 0
    _divided: dict[str, list[Row]] = field(default_factory=dict, repr=False)

    def given(self, split: str) -> bool:
        """Whether there are rows for a split."""
        return self.sources["train" if self.held_out.get(split) else split] is not None

    def rows(self, split: str) -> list[Row]:
        """The rows of a split."""
        if split not in {"train", *(name for name, count in self.held_out.items() if count)}:
            return self._read(split, self.max_rows[split])
        if not self._divided:
            self._divided = self._divide()
        return self._divided[split][: self.max_rows[split]]

    def _divide(self) -> dict[str, list[Row]]:
        """The rows of `train`, divided."""
        counts = {split: count for split, count in self.held_out.items() if count}
        fixed = all(count >= 1 for count in counts.values())
        limit = self.max_rows["train"]
        rows = self._read("train", None if limit is None or not fixed else limit + int(sum(counts.values())))
        sizes = {s: int(count) if count >= 1 else max(1, round(count * len(rows))) for s, count in counts.items()}
        if sum(sizes.values()) >= len(rows):
            settings = " and ".join(f"data.{split}_rows={count}" for split, count in counts.items())
            raise InputError(f"{settings} leaves none of {len(rows)} rows for training. Lower it.")
        order, start, divided, chosen = shuffled(len(rows), self.seed, "val").tolist(), 0, {}, set[int]()
        for split, size in sizes.items():
            indices = set(order[start : start + size])
            divided[split] = [row for index, row in enumerate(rows) if index in indices]
            chosen, start = chosen | indices, start + size
        return divided | {"train": [row for index, row in enumerate(rows) if index not in chosen]}

    def _read(self, split: str, limit: int | None) -> list[Row]:
        source, answered = self.sources[split], split != "predict"
        assert source is not None, "checked in setup"
        if isinstance(source, str):
            source = FileSource(source, split=DATASET_SPLITS[split], max_rows=limit)
        if isinstance(source, FileSource | MemorySource):
            source = copy.copy(source)
            source.format = source.format or self.format
            source.require_answers = source.require_answers and answered
        rows = source.rows()[:limit]
        if not answered:
            return [replace(row, answer=None) for row in rows]
        unanswered = next((row for row in rows if row.answer is None), None)
        if unanswered is not None:
            raise InputError(f"{split}: {unanswered.origin} has no answer. Only `predict` takes rows without answers.")
        return rows


def shared_rows(rows: Mapping[str, Sequence[Row]], new: Collection[str]) -> list[str]:
    """Warnings of rows of `val` and `test` whose question also stands in `train`.

    The texts of all turns before the answer are compared, but not system turns and white space.

    Args:
        rows: of the splits that have been read.
        new: only pairs with one of these splits are compared.

    Example:
        >>> one, other = (Row("", [{"role": "user", "content": text}], origin=text) for text in ("1 + 1?", "2 + 2?"))
        >>> shared_rows({"train": [one], "val": [one, other]}, ["val"])[0].split(", first")[0]
        '1 of 2 val rows also stand in train (same question)'
    """
    known: set[tuple[str, ...]] = set()
    warnings = []
    for split in ("val", "test"):
        if not {"train", split} <= rows.keys() or not {"train", split} & set(new):
            continue
        known = known or {_question(row) for row in rows["train"]}
        same = [row.origin for row in rows[split] if _question(row) in known]
        if same:
            warnings.append(
                f"{len(same)} of {len(rows[split])} {split} rows also stand in train (same question), first: "
                f"{same[0]}. Their figures may show memory instead of reasoning. Remove these rows from train."
            )
    return warnings


def _question(row: Row) -> tuple[str, ...]:
    return tuple(" ".join(turn["content"].split()) for turn in row.messages if turn["role"] != "system")
