"""Sources of rows: files, directories of the `datasets` library and hub datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from typing_extensions import override

from nrt_lightning.data.formats import QuestionAnswer, RowFormat
from nrt_lightning.data.readers import READERS, Records
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.structures import Row


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
    """Rows of a file, of a directory of the `datasets` library, or of a hub dataset.

    Args:
        path: a `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` or `.parquet` file, a directory (written by `save_to_disk`,
            or with data files), or a hub name such as `allenai/tulu-3-sft-mixture`.
        format: which columns hold question and answer.
        split: split to read from a directory or hub dataset.
        name: configuration of a hub dataset that has several.
        revision: branch, tag or commit of a hub dataset.
        max_rows: read only the first rows; null for all.
        require_answers: False for prediction: rows may lack a usable answer.

    Raises:
        InputError: the data do not exist or cannot be read, or a row cannot be used.

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
    require_answers: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        self.path = str(self.path)
        if not self.path:
            raise InputError("path='' is empty. Give a file, a directory or a hub name.")
        if self.max_rows is not None:
            check_at_least("max_rows", self.max_rows, 1)

    @override
    def rows(self) -> list[Row]:
        rows: list[Row] = []
        bad: list[str] = []
        for index, (origin, record) in enumerate(islice(self._records(), self.max_rows)):
            try:
                rows.append(self.format.parse(record, origin, index, require_answer=self.require_answers))
            except InputError as error:
                bad.append(str(error))
        if bad:
            more = f" (This is the first of {len(bad)} such rows of {len(rows) + len(bad)}.)"
            raise InputError(bad[0] + (more if len(bad) > 1 else ""))
        if not rows:
            raise InputError(f"{self.path}: no rows. Check that it is the right file and that it is complete.")
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
                f"'{self.path}' is not a local file or directory, and its split '{self.split}' could not be loaded "
                f"from the hub ({type(error).__name__}: {error}). Check path, name, split, revision and connection."
            ) from error


def _load_directory(path: Path, split: str) -> Any:
    """A split of a dataset directory, as an iterable of records."""
    import datasets

    try:
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        loaded = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
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


def _siblings(path: Path) -> str:
    """Similar names in the directory of a missing path, as the end of an error message."""
    if not path.parent.is_dir():
        return f" There is no directory '{path.parent}'. Check the path."
    entries = [entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    names = [entry.name for entry in entries if entry.is_dir() or entry.suffix.lower() in READERS]
    return nearest(path.name, names) if names else f" '{path.parent}' contains no data files. Check the path."
