"""Where rows come from: files, directories of the `datasets` library and names on the hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from nrt_lightning.data.formats import QuestionAnswer, RowFormat
from nrt_lightning.data.readers import READERS, Records
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row


class QASource(ABC):
    """Gives rows; a subclass implements `rows`."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """All rows, checked, in the same order at every call and on every rank.

        Raises:
            InputError: a row cannot be used; names the place and the mend.
        """


@dataclass
class FileSource(QASource):
    """Rows of a file, of a directory of the `datasets` library, or of a dataset on the hub.

    Args:
        path: a `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` or `.parquet` file, a directory (as `save_to_disk` writes
            it, or with data files in it), or a hub name such as `allenai/tulu-3-sft-mixture`.
        format: which columns hold question and answer.
        split: split to take from a directory or the hub.
        name: configuration of a hub dataset that has several.
        revision: branch, tag or commit of a hub dataset.
        max_rows: read only the first rows; all by default.
        require_answers: False for prediction: rows without an answer are taken.

    Raises:
        InputError: nothing is there, it cannot be read, or a row cannot be used.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "sums.csv"
        >>> _ = path.write_text("question,answer\\n1 + 1?,2\\n")
        >>> FileSource(str(path)).rows()[0].answer
        '2'
    """

    path: str
    format: RowFormat = field(default_factory=QuestionAnswer)
    split: str = "train"
    name: str | None = None
    revision: str | None = None
    max_rows: int | None = None
    require_answers: bool = True

    def __post_init__(self) -> None:
        self.path = str(self.path)
        if not self.path:
            raise InputError("path='' names no data. Give a file, a directory or a hub name.")
        if self.max_rows is not None and self.max_rows < 1:
            raise InputError(f"max_rows={self.max_rows} leaves no rows. Give at least 1, or null for all.")

    def rows(self) -> list[Row]:
        """All rows, checked, in the order of the source."""
        rows: list[Row] = []
        bad: list[str] = []
        for index, (origin, record) in enumerate(islice(self._records(), self.max_rows)):
            try:
                rows.append(self.format.parse(record, origin, index, self.require_answers))
            except InputError as error:
                bad.append(str(error))
        if bad:
            more = f" ({len(bad)} rows of {len(rows) + len(bad)} cannot be used; this is the first.)"
            raise InputError(bad[0] + (more if len(bad) > 1 else ""))
        if not rows:
            raise InputError(f"{self.path}: holds no rows. Check that it is the right file and was written whole.")
        return rows

    def _records(self) -> Records:
        path = Path(self.path).expanduser()
        if path.is_dir():
            return self._enumerate(_load_directory(path, self.split))
        if path.is_file():
            reader = READERS.get(path.suffix.lower())
            if reader is None:
                raise InputError(f"{path}: unknown file type '{path.suffix}'.{nearest(path.suffix, READERS)}")
            return reader(path)
        if path.suffix.lower() in READERS or self.path.startswith((".", "/", "~")) or self.path.count("/") > 1:
            raise InputError(f"{path}: no such file or directory.{_siblings(path)}")
        return self._enumerate(self._load_hub())

    def _enumerate(self, dataset: Any) -> Records:
        return ((f"{self.path}:row {number}", record) for number, record in enumerate(dataset, start=1))

    def _load_hub(self) -> Any:
        import datasets

        try:
            return datasets.load_dataset(self.path, self.name, split=self.split, revision=self.revision)
        except Exception as error:  # the hub's client raises many kinds
            raise InputError(
                f"'{self.path}' is neither a file nor a directory here, and split '{self.split}' of that name on the "
                f"hub could not be loaded ({type(error).__name__}: {error}). "
                "Check the path, name, split, revision and connection."
            ) from error


def _load_directory(path: Path, split: str) -> Any:
    """The wanted split of a directory, as an iterable of records."""
    import datasets

    try:
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        loaded = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:  # whatever a damaged or foreign directory provokes
        raise InputError(
            f"{path}: not a readable dataset directory ({type(error).__name__}: {error}). "
            "Write it with `Dataset.save_to_disk`, or give the data file itself."
        ) from error
    if not isinstance(loaded, dict):
        return loaded  # a single dataset has no splits
    if split not in loaded:
        raise InputError(f"{path}: no split '{split}'.{nearest(split, loaded)} Set the source's `split`.")
    return loaded[split]


def _siblings(path: Path) -> str:
    """What there is instead of a missing path."""
    if not path.parent.is_dir():
        return f" There is no directory '{path.parent}' either. Check the path."
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir() or entry.suffix.lower() in READERS]
    return nearest(path.name, names) if names else f" '{path.parent}' holds no data files. Check the path."
