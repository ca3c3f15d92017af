"""Readers of data files: records with their file and line.

JSON lines, JSON and CSV are read with the standard library, so that errors can name the line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nrt_lightning.data.csv_reader import read_csv
from nrt_lightning.data.decoding import decode
from nrt_lightning.data.parquet import read_parquet
from nrt_lightning.data.records import Records, WrittenFloat, from_pairs
from nrt_lightning.errors import InputError, nearest

DECODER = json.JSONDecoder(parse_float=WrittenFloat, object_pairs_hook=from_pairs)
UNREADABLE = (RecursionError, ValueError)  # too many brackets; too many digits


def read_json_lines(path: Path) -> Records:
    """Records of a file with one JSON object per line; empty lines are skipped."""
    with path.open("rb") as file:  # bytes split at line feeds only: a text may contain other line separators
        for number, line in enumerate(file, start=1):
            origin = f"{path}:{number}"
            text = decode(line, path, number).strip()
            if not text:
                continue
            try:
                record = DECODER.decode(text)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{origin}, column {error.colno}: not valid JSON ({error.msg}). "
                    "Write one JSON object per line, with text in double quotes."
                ) from None
            except UNREADABLE as error:
                raise InputError(f"{origin}: {_unreadable(error)}") from None
            yield origin, _object(record, origin)


def read_json(path: Path) -> Records:
    """Records of a JSON file: a list of objects, or one object per line."""
    text = decode(path.read_bytes(), path, 1)
    position, line = _skip_space(text, 0), 1
    if text[position : position + 1] == "{":
        _check_one_line(text, position, path)
        yield from read_json_lines(path)
        return
    if text[position : position + 1] != "[":
        raise InputError(f"{path}:1: neither a list of objects nor one object per line. Write [{{...}}, {{...}}].")
    counted, position, separator = 0, _skip_space(text, position + 1), ","
    while text[position : position + 1] != "]" and separator == ",":
        line, counted = line + text.count("\n", counted, position), position
        origin = f"{path}:{line}"
        try:
            record, position = DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{error.lineno}, column {error.colno}: not valid JSON ({error.msg}). Correct the record."
            ) from None
        except UNREADABLE as error:
            raise InputError(f"{origin}: {_unreadable(error)}") from None
        yield origin, _object(record, origin)
        position = _skip_space(text, position)
        separator = text[position : position + 1]
        if separator == ",":
            position = _skip_space(text, position + 1)
    line += text.count("\n", counted, position)
    if text[position : position + 1] != "]":
        raise InputError(f"{path}:{line}: expected ',' or ']' after the record. Check that the file is complete.")
    if text[position + 1 :].strip():
        raise InputError(f"{path}:{line}: text after the end of the list. Put all records into one list.")


def read_tsv(path: Path) -> Records:
    """Records of a CSV file with tabs as delimiters."""
    return read_csv(path, delimiter="\t")


READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def read_file(path: Path) -> Records:
    """Records of a data file of any known type.

    Raises:
        InputError: the type is not known, a record is not valid, or the operating system refuses to read the file.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown file type '{path.suffix}'.{nearest(path.suffix, READERS)}")
    return _readable(reader(path), path)


def _readable(records: Records, path: Path) -> Records:
    """The records of a file. Raises `InputError` where the operating system refuses to read it."""
    origin = str(path)
    try:
        for origin, record in records:
            yield origin, record
    except OSError as error:
        raise InputError(
            f"{origin}: cannot be read ({error.strerror or error}). Check the file's permissions."
        ) from None


def _check_one_line(text: str, position: int, path: Path) -> None:
    """Refuse a JSON file whose first object spans lines, so that it is no record of a line."""
    try:
        found, end = DECODER.raw_decode(text, position)
    except UNREADABLE:  # the reader of lines names the line
        return
    if "\n" not in text[position:end]:
        return
    names = [name for name, value in found.items() if isinstance(value, list) and isinstance((value or [0])[0], dict)]
    inside = (
        f", with a list of objects in {names[0]!r}. If they are the records, write that list alone" if names else ""
    )
    line = 1 + text.count("\n", 0, position)
    raise InputError(f"{path}:{line}: an object of several lines{inside}. Write the records as [{{...}}, {{...}}].")


def _object(record: Any, origin: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise InputError(
            f"{origin}: expected an object with named columns, got {type(record).__name__}. "
            'Write {"question": "...", "answer": "..."}.'
        )
    return record


def _unreadable(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "too many nested brackets. Check that it is the right file, or remove the record."
    if "digits" in str(error):
        return f"a number of more than {sys.get_int_max_str_digits()} digits. Write it as text."
    return f"not readable ({error}). Correct the record."


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
