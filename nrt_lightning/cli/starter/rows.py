"""Facts about a file of questions and answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from nrt_lightning.cli.starter.columns import find_format
from nrt_lightning.cli.starter.model import ModelFacts
from nrt_lightning.data import FileSource
from nrt_lightning.data.encoding import PromptEncoder
from nrt_lightning.data.formats import Messages, PromptCompletion, QuestionAnswer, RowFormat
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

FEWEST = 12  # rows: 8 to train on, 2 for validation, 2 for the test
MEASURED = 20_000  # rows whose tokens are counted


@dataclass
class RowFacts:
    """Rows of a file."""

    path: str
    format: RowFormat
    rows: list[Row]

    @classmethod
    def read(cls, path: str, question: str | None, answer: str | None) -> RowFacts:
        """Read and check all rows.

        Raises:
            InputError: the file cannot be read, a column is not found, a row cannot be used, or there are few rows.
        """
        origin, record = FileSource(path, max_rows=1).first_record()
        row_format = find_format(record, question, answer, origin)
        rows = FileSource(path, format=row_format).rows()
        if len(rows) < FEWEST:
            raise InputError(f"--data={path!r} has {len(rows)} rows. Training, validation and test need {FEWEST}.")
        return cls(path, row_format, rows)

    @property
    def held_out(self) -> int:
        """Rows for validation, and as many for the test: a tenth, at least 2 and at most 128."""
        return min(128, max(2, len(self.rows) // 10))

    @property
    def training(self) -> int:
        """Rows that are left for training."""
        return len(self.rows) - 2 * self.held_out

    def columns(self) -> str:
        """The columns, for a reader."""
        if isinstance(self.format, QuestionAnswer):
            return f"question in column {self.format.question!r}, answer in column {self.format.answer!r}"
        if isinstance(self.format, Messages):
            return f"conversations in column {self.format.column!r}"
        assert isinstance(self.format, PromptCompletion)
        return f"prompt in column {self.format.prompt!r}, completion in column {self.format.completion!r}"

    def tokens(self, model: ModelFacts) -> tuple[list[int], list[int]]:
        """Lengths of prompts under the default template, and of answers with their end."""
        encoder = PromptEncoder(model.prepared[0], model.template, sys.maxsize, sys.maxsize)
        encoded = encoder.fitting(self.rows[:MEASURED])
        rows = [encoded[index] for index in range(len(encoded))]
        return [len(row.prompt_ids) for row in rows], [len(row.answer_ids) for row in rows]

    @property
    def repeated(self) -> int:
        """Rows whose conversation stands in an earlier one."""
        return len(self.rows) - len({str(row.messages) for row in self.rows})


def limit(lengths: Sequence[int], step: int) -> int:
    """A limit above all lengths, with room for a quarter more: a multiple of `step`.

    >>> limit([3, 40], 16), limit([1], 16)
    (64, 16)
    """
    return -(-max(lengths) * 5 // 4 // step) * step
