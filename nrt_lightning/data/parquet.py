"""Reader of Parquet files, which bounds what they decompress to and names the row that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nrt_lightning.data.arrow import with_written_numbers
from nrt_lightning.data.compression import check_size
from nrt_lightning.data.records import Records, Repeated, twice
from nrt_lightning.errors import InputError

BATCH = 1024  # rows that are read at once


def read_parquet(path: Path) -> Records:
    """Records of a Parquet file; the origin is the row number, from 1.

    Raises:
        InputError: the file is damaged, or far larger when decompressed; names the file and the row.
    """
    import pyarrow.parquet

    number = -1  # rows read; -1 before the first is tried
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            for index in range(file.num_row_groups):
                group = file.metadata.row_group(index)
                columns = [group.column(column) for column in range(group.num_columns)]
                check_size(path, sum(c.total_compressed_size for c in columns), group.total_byte_size)
            number, repeated = 0, twice(file.schema_arrow.names)
            for number, record in enumerate(with_written_numbers(records_of(file), file.schema_arrow), start=1):
                yield f"{path}:row {number}", Repeated(record, repeated) if repeated else record
    except (GeneratorExit, InputError):
        raise
    except Exception as error:  # of pyarrow, of its codecs and of the operating system
        where = f"{path}:row {number + 1}" if number >= 0 else str(path)
        problem = " ".join(str(error).split())
        raise InputError(f"{where}: not a readable Parquet file ({problem}). Write it again.") from None


def records_of(file: Any) -> Iterator[dict[str, Any]]:
    """The records of a Parquet file, the readable ones before the first damaged one too."""
    for batch in file.iter_batches(batch_size=BATCH):
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError:
            for row in range(batch.num_rows):
                yield from batch.slice(row, 1).to_pylist()
