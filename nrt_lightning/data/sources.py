"""Sources of rows: files, directories and hub datasets."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from typing_extensions import override

from nrt_lightning.data.arrow import with_written_numbers
from nrt_lightning.data.directories import read_directory
from nrt_lightning.data.formats import QuestionAnswer, RowFormat
from nrt_lightning.data.paths import check_local, checked_path
from nrt_lightning.data.readers import read_file
from nrt_lightning.data.records import Records, repeated_columns
from nrt_lightning.data.values import check_row
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.structures import Row

log = logging.getLogger(__name__)


class QASource(ABC):
    """Base class of sources; a subclass implements `rows`."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """All rows, checked, in the same order at every call and on every process.

        Raises:
            InputError: a row cannot be used; names its file and line.
        """


@dataclass
class FileSource(QASource):
    """Rows of a file, of a directory, or of a hub dataset.

    Args:
        path: a `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` or `.parquet` file, a directory (written by `save_to_disk`,
            or with such files, whose names say their split), or a hub name such as `allenai/tulu-3-sft-mixture`.
        format: which columns hold question and answer; null for `data.format` in a `QADataModule`, and otherwise for
            `QuestionAnswer()`.
        split: split to read from a directory or hub dataset.
        name: configuration of a hub dataset that has several.
        revision: branch, tag or commit of a hub dataset.
        max_rows: read only the first rows; null for all.
        require_answers: False for rows that may lack the answer; a `QADataModule` sets it for `predict`.

    Raises:
        InputError: the data do not exist or cannot be read, or a row cannot be used.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "sums.csv"
        >>> _ = path.write_text("question,answer\\n1 + 1?,2\\n")
        >>> FileSource(str(path)).rows()[0].answer
        '2'
    """

    path: str | os.PathLike[str]
    format: RowFormat | None = None
    split: str = "train"
    name: str | None = None
    revision: str | None = None
    max_rows: int | None = None
    require_answers: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        self.path = os.fspath(self.path)
        if not self.path:
            raise InputError("path='' is empty. Give a file, a directory or a hub name.")
        if self.max_rows is not None:
            check_at_least("max_rows", self.max_rows, 1)

    @override
    def rows(self) -> list[Row]:
        records = islice(self._records(), self.max_rows)
        return parsed(records, self.format or QuestionAnswer(), str(self.path), require_answers=self.require_answers)

    def first_record(self) -> tuple[str, dict[str, Any]]:
        """The origin and the columns of the first record, before a format reads it.

        Raises:
            InputError: the data do not exist or cannot be read, or there are no records.
        """
        first = next(iter(self._records()), None)
        if first is None:
            raise InputError(f"{self.path}: no rows. Check that it is the right file and that it is complete.")
        return first

    def _records(self) -> Records:
        name = str(self.path)
        path = checked_path(name)
        if path.is_dir():
            saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
            return self._enumerate(_load_saved(path, self.split)) if saved else read_directory(path, self.split)
        if path.is_file():
            return read_file(path)
        check_local(path, name, of_the_hub=bool(self.revision or self.name))
        _check_no_class(name)
        return self._enumerate(self._load_hub(name))

    def _enumerate(self, dataset: Any) -> Records:
        records = with_written_numbers(dataset, schema_of(dataset))
        return ((f"{self.path}:row {number}", record) for number, record in enumerate(records, start=1))

    def _load_hub(self, path: str) -> Any:
        import datasets

        try:
            return datasets.load_dataset(path, self.name, split=self.split, revision=self.revision)
        except Exception as error:  # the hub's client raises many kinds
            raise InputError(
                f"'{path}' is not a local file or directory, and its split '{self.split}' could not be loaded "
                f"from the hub ({type(error).__name__}: {error}). Check path, name, split, revision and connection."
            ) from error


@dataclass
class MemorySource(QASource):
    """Rows that exist in Python, such as a list of dicts or a split of a `datasets.DatasetDict`.

    Args:
        records: dicts, or rows. The source iterates over it at every call of `rows`.
        name: of the rows, for errors.
        format: which columns hold question and answer; null as for `FileSource`.
        max_rows: read only the first rows; null for all.
        require_answers: False for rows that may lack the answer.

    Raises:
        InputError: the rows can be read only once, or a row cannot be used.

    Example:
        >>> MemorySource([{"question": "1 + 1?", "answer": 2}]).rows()[0].answer
        '2'
    """

    records: Iterable[Mapping[str, Any] | Row] = field(repr=False)
    name: str = "rows"
    format: RowFormat | None = None
    max_rows: int | None = None
    require_answers: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.records, Iterator):
            raise InputError(f"{self.name}: a {type(self.records).__name__} can be read only once. Make it a list.")

    @override
    def rows(self) -> list[Row]:
        numbered = enumerate(with_written_numbers(self.records, schema_of(self.records)), start=1)
        records = islice(((f"{self.name}:row {number}", record) for number, record in numbered), self.max_rows)
        return parsed(records, self.format or QuestionAnswer(), self.name, require_answers=self.require_answers)


def parsed(
    records: Iterable[tuple[str, Any]], row_format: RowFormat, name: str, *, require_answers: bool = True
) -> list[Row]:
    """Rows of records with their origins. Raises `InputError` for the first bad record, with the number of all."""
    rows: list[Row] = []
    bad: list[str] = []
    twice: dict[str, str] = {}  # columns by their first origin
    for index, (origin, record) in enumerate(records):
        for column in repeated_columns(record):
            twice.setdefault(column, origin)
        try:
            if isinstance(record, Row):
                check_row(record)
                rows.append(record)
            elif isinstance(record, Mapping):
                rows.append(row_format.parse(record, origin, index, require_answer=require_answers))
            else:
                raise InputError(
                    f"{origin}: expected a dict of columns, got {type(record).__name__}. "
                    'Give a list of dicts such as {"question": "...", "answer": "..."}.'
                )
        except InputError as error:
            bad.append(str(error))
    if bad:
        more = f" (This is the first of {len(bad)} such rows of {len(rows) + len(bad)}.)"
        raise InputError(bad[0] + (more if len(bad) > 1 else ""))
    if twice:
        columns = ", ".join(f"{column!r} ({origin})" for column, origin in twice.items())
        log.warning("%s: %d columns that are not read stand twice, first: %s.", name, len(twice), columns)
    if not rows:
        raise InputError(f"{name}: no rows. Check that it is the right file and that it is complete.")
    return rows


def schema_of(records: Any) -> Any:
    """The Arrow schema of a `datasets.Dataset`; None for other records."""
    return getattr(getattr(records, "features", None), "arrow_schema", None)


def _check_no_class(name: str) -> None:
    """Refuse the misspelled name of a source, before it is looked for on the hub."""
    kinds = [QASource]
    for kind in kinds:
        kinds += kind.__subclasses__()
    similar = nearest(name, {kind.__name__ for kind in kinds[1:]})
    if name[:1].isupper() and similar.startswith(" Did you mean"):
        raise InputError(f"{name!r} is neither a file nor the name of a source.{similar}")


def _load_saved(path: Path, split: str) -> Any:
    """A split of a directory that `save_to_disk` wrote, as an iterable of records."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds
        raise InputError(
            f"{path}: not a readable dataset directory ({type(error).__name__}: {error}). "
            "Write it with `Dataset.save_to_disk`, or give a data file."
        ) from error
    if not isinstance(loaded, dict):
        return loaded  # a single dataset without splits
    if split not in loaded:
        raise InputError(f"{path}: no split '{split}'.{nearest(split, loaded)} Set `split` of the source.")
    return loaded[split]
