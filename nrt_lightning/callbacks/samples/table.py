"""The samples of a run as one growing table in Weights & Biases."""

from __future__ import annotations

from typing import Any

COLUMNS = (
    "step", "prompts", "split", "id", "question", "reference answer", "kind", "reward", "gain", "confidence",
    "confidence without trace", "own answer", "right", "marker emitted", "cut", "trace tokens", "trace",
)  # fmt: skip
KEY = "samples"


def rows_of(records: list[dict[str, Any]]) -> list[list[Any]]:
    """One row of the table for each trace."""
    return [
        [
            record["step"], record["prompts"], record["split"], record["id"], record["question"], record["reference"],
            trace["kind"], trace["reward"], trace["gain"], trace["confidence"], record["baseline_confidence"],
            trace["own_answer"], trace["right"], trace["marker_emitted"], trace["cut"], trace["trace_tokens"],
            trace["text"],
        ]
        for record in records
        for trace in record["traces"]
    ]  # fmt: skip


class GrowingTable:
    """Adds rows to a table of a W&B run. Only the new rows are sent."""

    def __init__(self) -> None:
        self.table: Any = None

    def add(self, logger: Any, records: list[dict[str, Any]], step: int) -> None:
        """Add the rows of records.

        Args:
            logger: a `WandbLogger`.
            records: of one look.
            step: that the logger counts in.
        """
        import wandb

        if self.table is None:
            self.table = wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL", allow_mixed_types=True)
        for row in rows_of(records):
            self.table.add_data(*row)
        logger.experiment.log({KEY: self.table, "trainer/global_step": step})
