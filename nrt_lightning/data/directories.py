"""Directories of data files: which files belong to a split."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from nrt_lightning.data.paths import check_regular
from nrt_lightning.data.readers import READERS, read_file
from nrt_lightning.data.records import Records
from nrt_lightning.errors import InputError, nearest

log = logging.getLogger(__name__)

SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
METADATA = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}  # of `datasets`
UNREAD = {
    ".arrow", ".avro", ".bz2", ".feather", ".gz", ".orc", ".ods", ".txt", ".xls", ".xlsx", ".xz", ".zip", ".zst"
}  # fmt: skip
SHOWN = 5  # files in a message


def read_directory(directory: Path, split: str) -> Records:
    """Records of the data files below a directory that belong to a split, file by file in the order of their paths.

    A file belongs to the split that its name says, or else that of the nearest folder inside the directory whose name
    says one: `train` or `training`; `validation`, `valid`, `val` or `dev`; `test` or `testing`, as a word of the name.
    If no name says one, all files are `train`. Hidden files and the metadata of `datasets` are no data files.

    Args:
        directory: not written by `save_to_disk`.
        split: name of the split.

    Raises:
        InputError: there are no data files, the split of some is not known, or there is no such split.
    """
    files = data_files(directory)
    splits = {file: splits_named(file.relative_to(directory)) for file in files}
    if not any(splits.values()):
        splits = {file: {"train"} for file in files}
    unclear = [file for file in files if len(splits[file]) != 1]
    if unclear:
        raise InputError(
            f"{directory}: the names of some files say a split, but these say none or several: "
            f"{_named(unclear, directory)}. Put train, validation or test into each name, or move these files away."
        )
    known = list(dict.fromkeys(name for names in splits.values() for name in names))
    if split not in known:
        raise InputError(f"{directory}: no split '{split}'.{nearest(split, known)} Set `split` of the source.")
    chosen = [file for file in files if split in splits[file]]
    log.info("%s: %d files of the split '%s': %s.", directory, len(chosen), split, _named(chosen, directory))
    return chain.from_iterable(map(read_file, chosen))


def data_files(directory: Path) -> list[Path]:
    """The data files below a directory. Warns of files that seem to hold data in a form that is not read.

    Raises:
        InputError: there are none, or a folder cannot be read.
    """
    try:
        found = list(_files_below(directory))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}). Check its permissions.") from None
    files = [file for file in found if file.suffix.lower() in READERS and file.name not in METADATA]
    unread = [file for file in found if file.suffix.lower() in UNREAD]
    for file in files:
        check_regular(file)  # behind a link too
    known = ", ".join(READERS)
    if not files:
        there = f", but {_named(unread, directory)}, which cannot be read" if unread else ""
        raise InputError(f"{directory}: no data files{there}. Write the rows as one of {known}, or by `save_to_disk`.")
    if unread:
        log.warning(
            "%s: %d files are not read: %s. If they hold rows, write them as one of %s.",
            directory, len(unread), _named(unread, directory), known,
        )  # fmt: skip
    return files


def splits_named(path: Path) -> set[str]:
    """The splits that the words of a file's name say, or else those of the nearest folder that says some.

    >>> splits_named(Path("train-00000-of-00002.parquet")), splits_named(Path("dev/sums.csv"))
    ({'train'}, {'validation'})
    >>> splits_named(Path("sums.csv")), splits_named(Path("contest.csv"))
    (set(), set())
    """
    for name in (path.stem, *reversed(path.parent.parts)):
        words = re.findall(r"[^\W\d_]+", name.lower())
        if found := {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}:
            return found
    return set()


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files that are not hidden, sorted; a link to a folder that holds it is not followed."""
    real = folder.resolve()
    if real in above:
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files_below(entry, (*above, real))
        else:
            yield entry


def _named(files: list[Path], directory: Path) -> str:
    """The first of some files, and how many more there are."""
    shown = ", ".join(repr(str(file.relative_to(directory))) for file in files[:SHOWN])
    return shown + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")
