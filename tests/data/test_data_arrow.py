"""Floats of Parquet files and datasets keep the digits of their type."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from nrt_lightning.data import FileSource, MemorySource
from nrt_lightning.data.readers import read_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NUMBERS = [0.1, 2.5, 3.0, 1e-5, 16777216.0]
TEXTS = ["0.1", "2.5", "3.0", "1e-05", "16777216.0"]


def table(kind, numbers=NUMBERS) -> pa.Table:
    values = pa.array(np.array(numbers, dtype=kind.to_pandas_dtype()), type=kind)
    return pa.table({"question": [f"q{n}" for n in range(len(numbers))], "answer": values})


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_floats_of_parquet_read_as_they_were_written(tmp_path: Path, kind) -> None:
    pq.write_table(table(kind), tmp_path / "rows.parquet")
    assert [row.answer for row in FileSource(str(tmp_path / "rows.parquet")).rows()] == TEXTS


def test_half_precision_too(tmp_path: Path) -> None:
    pq.write_table(table(pa.float16(), [0.1, 3.0]), tmp_path / "rows.parquet")
    assert [row.answer for row in FileSource(str(tmp_path / "rows.parquet")).rows()] == ["0.1", "3.0"]


def test_inside_of_conversations_too(tmp_path: Path) -> None:
    turn = pa.struct([("role", pa.string()), ("content", pa.float32())])
    question = pa.array([[{"role": "user", "content": 1.0}, {"role": "assistant", "content": 0.1}]], pa.list_(turn))
    pq.write_table(pa.table({"messages": question, "id": [7]}), tmp_path / "rows.parquet")
    [(_, record)] = read_parquet(tmp_path / "rows.parquet")
    assert [str(turn["content"]) for turn in record["messages"]] == ["1.0", "0.1"]
    assert record["id"] == 7


def test_datasets_in_memory_and_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset(table(pa.float32()))
    assert [row.answer for row in MemorySource(rows).rows()] == TEXTS
    rows.save_to_disk(str(tmp_path / "saved"))
    assert [row.answer for row in FileSource(str(tmp_path / "saved")).rows()] == TEXTS


def test_decimals_are_written_out(tmp_path: Path) -> None:
    numbers = [Decimal("100000.00"), Decimal("0.00"), Decimal("-2.50"), Decimal("0.0000000001")]
    answers = pa.array(numbers, type=pa.decimal128(20, 10))
    pq.write_table(pa.table({"question": ["q"] * 4, "answer": answers}), tmp_path / "rows.parquet")
    expected = ["100000.0000000000", "0.0000000000", "-2.5000000000", "0.0000000001"]
    assert [row.answer for row in FileSource(str(tmp_path / "rows.parquet")).rows()] == expected
    thousands = pa.array([Decimal("1E+5")], type=pa.decimal128(10, -3))
    assert MemorySource([{"question": "q", "answer": thousands[0].as_py()}]).rows()[0].answer == "100000"
