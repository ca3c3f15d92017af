"""Batches of plain texts, which dataloaders of the user's own yield."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from nrt_lightning.data.default_template import fit_together, prompt_example
from nrt_lightning.data.encoding import PromptEncoder
from nrt_lightning.data.formats import answer_text
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Prompts, Row

log = logging.getLogger(__name__)

SHOWN = 5  # ids of dropped rows in a message


@dataclass(frozen=True)
class TextBatches:
    """How batches `{"question": [...], "answer": [...], "id": [...]}` of any dataloader are encoded.

    Args:
        template: turns a question into a prompt; null for the tokenizer's chat template, or without one for a plain
            text that asks for reasoning.
        max_prompt_tokens: maximum length of a prompt, with special tokens. Longer rows are dropped, never cut.
        max_answer_tokens: maximum length of an answer, with the end token. Longer rows are dropped, never cut.
    """

    template: PromptTemplate | None = None
    max_prompt_tokens: int = 1024
    max_answer_tokens: int = 512

    def encoder(self, policy: Any) -> TextBatchEncoder:
        """The encoder of a LightningModule of the user's own, for its `on_before_batch_transfer`.

        Args:
            policy: of the module, whose tokenizer, marker and end of answers are used.
        """
        return TextBatchEncoder(self, policy.tokenizer, policy=policy)


class TextBatchEncoder:
    """Encodes batches of plain texts, counts the rows that are too long, and logs their ids.

    Args:
        settings: template and limits.
        tokenizer: the policy's tokenizer.
        write: gets the template with the first prompt, to be logged.
        policy: whose marker and end of answers are used; None for answers alone, which end with the tokenizer's end
            token.
    """

    def __init__(
        self,
        settings: TextBatches,
        tokenizer: PreTrainedTokenizerBase,
        write: Callable[[str], Any] = log.info,
        policy: Any = None,
    ) -> None:
        self.template = fit_together(settings.template, tokenizer, policy)
        limits = (settings.max_prompt_tokens, settings.max_answer_tokens)
        self.encoder = PromptEncoder(tokenizer, self.template, *limits, max_dropped_share=1.0)
        self.write = write
        self.seen = 0  # rows so far
        self.dropped = 0
        self.known: set[str] = set()  # ids that the log has named

    def encode(self, batch: Mapping[str, Any] | Prompts, *, require_answers: bool = True) -> Prompts | None:
        """The rows that fit, as a padded batch; None if none does. `Prompts` are returned as they are.

        Raises:
            InputError: a column is missing, or a value is no text.
        """
        if isinstance(batch, Prompts):
            return batch
        rows = list(rows_of(batch, self.seen, require_answers=require_answers))
        if self.seen == 0 and rows:
            self.write(prompt_example(self.template, rows[0], self.encoder.tokenizer))
        encoded = self.encoder.fitting(rows)
        self.seen += len(rows)
        self._report(encoded.report.origins)
        return encoded.collate([encoded[index] for index in range(len(encoded))]) if len(encoded) else None

    def _report(self, origins: Sequence[str]) -> None:
        self.dropped += len(origins)
        new = [origin for origin in origins if origin not in self.known]
        if not new:
            return
        self.known.update(new)
        shown = ", ".join(new[:SHOWN]) + (f" and {len(new) - SHOWN} more" if len(new) > SHOWN else "")
        log.warning(
            "dropped as too long: %s (text_batches.max_prompt_tokens=%d, max_answer_tokens=%d, answers without "
            "their end in them); %d of %d rows so far.",
            shown, self.encoder.max_prompt_tokens, self.encoder.max_answer_tokens, self.dropped, self.seen,
        )  # fmt: skip


def check_batch(batch: object) -> None:
    """Check that a batch has been encoded.

    Raises:
        InputError: it is something else, and no mapping, which would have been encoded.
    """
    if not isinstance(batch, Prompts):
        raise InputError(
            f"The dataloader yields a batch of type {type(batch).__name__}. Yield a mapping of lists, "
            "{'question': [...], 'answer': [...]}, or Prompts, as QADataModule does."
        )


def rows_of(batch: Mapping[str, Any], start: int = 0, *, require_answers: bool = True) -> Iterator[Row]:
    """The rows of a batch of plain texts.

    Args:
        batch: columns of equal length: `question`, `answer` unless it is not required, and `id` or `ids` if there are.
        start: number of the first row, for rows without an id.
        require_answers: False for prediction.

    Raises:
        InputError: a column is missing or of another length, or a value is no text.

    Example:
        >>> [row.answer for row in rows_of({"question": ["1 + 1?"], "answer": [2], "id": ["a"]})]
        ['2']
    """
    questions = _column(batch, "question")
    needed = require_answers or "answer" in batch
    answers = _column(batch, "answer") if needed else [None] * len(questions)
    key = next((key for key in ("id", "ids") if key in batch), None)
    ids = [start + index for index in range(len(questions))] if key is None else _column(batch, key)
    for name, values in (("answer", answers), (key, ids)):
        if len(values) != len(questions):
            raise InputError(f"A batch has {len(questions)} of 'question', but {len(values)} of '{name}'.")
    for question, answer, row_id in zip(questions, answers, ids, strict=True):
        origin = f"row {row_id} of the dataloader"
        if not isinstance(question, str):
            raise InputError(f"{origin}: 'question' is {question!r}, not a text. Yield texts.")
        text = answer_text(answer, "answer", origin) if require_answers else None
        yield Row(str(row_id), [{"role": "user", "content": question}], text, origin)


def _column(batch: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a column; the default collation of torch makes tensors of numbers."""
    if name not in batch:
        raise InputError(
            f"A batch of the dataloader has no '{name}'.{nearest(name, map(str, batch))} "
            "It needs 'question', and 'answer' to train."
        )
    values = batch[name]
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"A batch of the dataloader has {values!r} as '{name}'. Yield a list, one value a row.")
    return list(values)
