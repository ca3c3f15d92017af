"""The samples of a run as one growing table in Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLUMNS = {  # with the field of the record or of the trace that each shows
    "step": "step", "prompts": "prompts", "split": "split", "id": "id", "question": "question",
    "reference answer": "reference", "kind": "kind", "reward": "reward", "gain": "gain", "confidence": "confidence",
    "confidence without trace": "baseline_confidence", "own answer": "own_answer", "right": "right",
    "marker emitted": "marker_emitted", "cut": "cut", "trace tokens": "trace_tokens", "trace": "text",
}  # fmt: skip
OF_TRACES = ("kind", "reward", "gain", "confidence without trace", "marker emitted", "cut", "trace tokens", "trace")
KEY = "samples"


def columns_of(records: list[dict[str, Any]]) -> list[str]:
    """The columns for a run: without those of traces if it writes none."""
    traced = any(trace["text"] is not None for record in records for trace in record["traces"])
    return [column for column in COLUMNS if traced or column not in OF_TRACES]


def rows_of(records: list[dict[str, Any]], columns: Sequence[str]) -> list[list[Any]]:
    """One row of the table for each trace, or each answer without one."""
    return [
        [(record | trace)[COLUMNS[column]] for column in columns] for record in records for trace in record["traces"]
    ]


class GrowingTable:
    """Adds rows to a table of a W&B run. Only the new rows are sent."""

    def __init__(self) -> None:
        self.table: Any = None

    def add(self, logger: Any, records: list[dict[str, Any]], step: int) -> None:
        """Add the rows of records.

        Args:
            logger: a `WandbLogger`.
            records: of one measurement.
            step: that the logger counts in.
        """
        import wandb

        if self.table is None:
            columns = columns_of(records)
            self.table = wandb.Table(columns=columns, log_mode="INCREMENTAL", allow_mixed_types=True)
        for row in rows_of(records, self.table.columns):
            self.table.add_data(*row)
        logger.experiment.log({KEY: self.table, "trainer/global_step": step})
