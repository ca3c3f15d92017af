"""Values of columns: texts, numbers as texts, and what is wrong with the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from nrt_lightning.data.records import repeated_columns
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row


def value_of(record: Mapping[str, Any], name: str, setting: str, origin: str) -> Any:
    """The value of a required column; `setting` is the field of the format that names the column."""
    if name not in record:
        raise InputError(
            f"{origin}: no column '{name}'.{nearest(name, map(str, record))} "
            f"Set `{setting}` of `format`, or rename the column."
        )
    check_once(record, name, origin)
    return record[name]


def check_once(record: Mapping[str, Any], name: str, origin: str) -> None:
    """Refuse a column that stands twice in its record: which one is meant?"""
    if name in repeated_columns(record):
        raise InputError(f"{origin}: column '{name}' stands twice. Keep one, or rename the other.")


def text_value(value: Any, column: str, origin: str) -> str:
    """A checked text."""
    where = f"{origin}, column '{column}'"
    if not isinstance(value, str):
        raise InputError(f"{where}: expected text, got {kind(value)} ({shown(value)}). Write it as a string.")
    if not value.strip():
        raise InputError(f"{where}: the value is empty. Fill it in or remove the row.")
    check_characters(value, where)
    return value


def check_characters(value: str, where: str) -> None:
    """Refuse lone surrogates, halves of a character that no text file can hold.

    Raises:
        InputError: names the place, the character and its position.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: character {error.start + 1} is \\u{ord(value[error.start]):x}, half of a character (a lone "
            "surrogate). Write the whole character or remove it."
        ) from None


def check_row(row: Row) -> None:
    """Refuse a row whose texts hold lone surrogates."""
    for turn in row.messages:
        check_characters(turn["content"], f"{row.origin or row.id}: a turn of role {turn['role']!r}")
    check_characters(row.answer or "", f"{row.origin or row.id}: the answer")


def number_text(value: Any) -> Any:
    """The text of an integer, a finite float or a decimal; any other value unchanged.

    >>> number_text(7), number_text(3.0), number_text(Decimal("1E+2")), number_text(True), number_text(float("nan"))
    ('7', '3.0', '100', True, nan)
    """
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return value
    try:
        if not isinstance(value, Integral) and not math.isfinite(value):
            return value
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    except ValueError:  # an integer of thousands of digits
        return value


def answer_text(value: Any, column: str, origin: str) -> str:
    """The text of an answer, which may be a number."""
    return text_value(number_text(value), column, origin)


def row_id(record: Mapping[str, Any], column: str, index: int, origin: str) -> str:
    """The id of a row; its index if the record has none."""
    value = record.get(column)
    if value is None:
        return str(index)
    check_once(record, column, origin)
    try:
        found = str(value)
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(
            f"{origin}, column '{column}': the id cannot be written ({error}). Write it as text."
        ) from None
    check_characters(found, f"{origin}, column '{column}'")
    return found


def kind(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else "float" if isinstance(value, float) else type(value).__name__


def shown(value: Any) -> str:
    """A value in at most 60 characters."""
    try:
        found = str(value) if isinstance(value, float) else repr(value)
    except ValueError:
        return "a number of too many digits"
    return found if len(found) <= 60 else found[:57] + "..."
