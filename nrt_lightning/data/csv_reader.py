"""Reader of CSV files: records with their first line."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nrt_lightning.data.decoding import check_no_nul, decode
from nrt_lightning.data.records import Records, Repeated, twice
from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)


def read_csv(path: Path, delimiter: str = ",") -> Records:
    """Records of a CSV file with a header. Quoted texts may span lines; the origin is the first line.

    Raises:
        InputError: a record is not valid; names its line.
    """
    limit = csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is too short for long answers
    merged: list[int] = []  # first lines of records in which a quote seems to have taken up others
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _numbered(csv.reader(file, delimiter=delimiter, strict=True), path)
            columns = _header(next(lines, (1, []))[1], path)
            repeated = twice(columns)
            for line, fields in lines:
                _check_delimiter(columns, fields, delimiter, path)
                if len(fields) != len(columns):
                    raise InputError(
                        f"{path}:{line}: {'more' if len(fields) > len(columns) else 'fewer'} fields than the header's "
                        f"{len(columns)} columns. Put texts with delimiters, quotes or line breaks in double quotes."
                    )
                if any(holds_rows(field, index, len(fields), delimiter) for index, field in enumerate(fields)):
                    merged.append(line)
                record = dict(zip(columns, fields, strict=True))
                yield f"{path}:{line}", Repeated(record, repeated) if repeated else record
    except UnicodeDecodeError:
        decode(path.read_bytes(), path, 1)  # raises an error that names the line
        raise
    finally:
        csv.field_size_limit(limit)
        if merged:
            log.warning(
                "%s: %d records hold a text of several lines that read like records, first: line %d. If they are "
                "records, a double quote before them is not closed: write it twice inside double quotes.",
                path, len(merged), merged[0],
            )  # fmt: skip


def holds_rows(text: str, column: int, columns: int, delimiter: str) -> bool:
    r"""True if the lines of a text would be records of their own, if a quote had not joined them.

    >>> holds_rows("1 + 1?,2\n1 + 2?,3\n1 + 3?", column=0, columns=2, delimiter=",")
    True
    >>> holds_rows("First,\nadd one.", column=1, columns=2, delimiter=",")
    False
    """
    if "\n" not in text or columns < 2:
        return False
    first, *inner, last = text.split("\n")
    return (
        first.count(delimiter) == columns - 1 - column
        and last.count(delimiter) == column
        and all(line.count(delimiter) == columns - 1 for line in inner if line.strip())
    )


def _numbered(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records with their first lines, without empty lines. Raises `InputError` for one that is not valid."""
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{line}: not valid CSV ({error}). Check the quotes of this record.") from None


def _header(names: Sequence[str], path: Path) -> list[str]:
    """The columns, without white space around their names where that leaves them different."""
    check_no_nul("".join(names), path, 1)
    stripped = [name.strip() for name in names]
    return stripped if len(set(stripped)) == len(set(names)) else list(names)


def _check_delimiter(columns: Sequence[str], fields: Sequence[str], delimiter: str, path: Path) -> None:
    """Refuse a file of one column whose header and texts are divided by another delimiter."""
    if len(columns) != 1:
        return
    other = next((d for d in (",", ";", "\t") if d != delimiter and d in columns[0] and d in "".join(fields)), None)
    if other is not None:
        kind = "a .tsv file with tabs" if delimiter == "\t" else "a .csv file with commas, or a .tsv file with tabs"
        raise InputError(f"{path}:1: the columns seem to be divided by {other!r}. Save them as {kind}.")
