"""Numbers of Arrow tables, as Parquet files and datasets hold them, with the digits that their type has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def with_written_numbers(records: Iterable[Any], schema: Any) -> Iterator[Any]:
    """Records whose floats of 16 and 32 bits have their shortest text: 0.1 and not 0.10000000149011612.

    Args:
        records: dicts by column.
        schema: of pyarrow; None if it is not known.
    """
    kinds = {} if schema is None else {entry.name: entry.type for entry in schema if is_narrow(entry.type)}
    for record in records:
        if kinds and isinstance(record, dict):
            record = record | {name: written(record[name], kind) for name, kind in kinds.items() if name in record}
        yield record


def is_narrow(kind: Any) -> bool:
    """True for an Arrow type that holds floats of less than 64 bits, in lists and structs too."""
    if str(kind) in ("float", "halffloat"):
        return True
    return any(is_narrow(kind.field(index).type) for index in range(kind.num_fields))


def written(value: Any, kind: Any) -> Any:
    """A value of an Arrow type with the digits of its floats."""
    import numpy

    if value is None:
        return None
    if str(kind) in ("float", "halffloat"):
        return float(str((numpy.float32 if str(kind) == "float" else numpy.float16)(value)))
    if isinstance(value, dict):
        inner = {kind.field(index).name: kind.field(index).type for index in range(kind.num_fields)}
        return {name: written(part, inner[name]) if is_narrow(inner[name]) else part for name, part in value.items()}
    if isinstance(value, list) and kind.num_fields == 1:
        return [written(part, kind.field(0).type) for part in value]
    return value
