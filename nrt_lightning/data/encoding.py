"""Encoding of rows to token ids with maximum lengths, and collation of token ids to padded batches."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from nrt_lightning.data.control_text import ControlText
from nrt_lightning.data.report import EncodingReport, check_dropped, log_kept
from nrt_lightning.data.sampler import REPEATED, MicroBatch
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.data.values import check_row
from nrt_lightning.errors import InputError
from nrt_lightning.functional.continuation import continuations, token_ids
from nrt_lightning.functional.padding import pad_rows
from nrt_lightning.functional.validation import check_at_least, check_fraction, check_tokenizer
from nrt_lightning.structures import Prompts, Row, WindowStep

ALONE = WindowStep()  # a batch that is not part of a larger window
CHUNK = 1000  # rows per tokenizer call: enough for its threads, and little memory


@dataclass
class EncodedRow:
    """A row with its token ids."""

    row: Row
    prompt_ids: Tensor  # [P]
    answer_ids: Tensor  # [T]
    counted: bool = field(default=True, kw_only=True)  # False for padding rows of `EvaluationSampler`


class TokenLists:
    """Token id lists of different lengths in one array, which takes a tenth of the memory of Python lists."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._ends = array("q", [0])

    def extend(self, lists: Sequence[Sequence[int]]) -> None:
        """Append lists of token ids."""
        for ids in lists:
            self._ids.extend(ids)
            self._ends.append(len(self._ids))

    def lengths(self) -> Tensor:
        """Tokens of each list. [rows]"""
        return torch.tensor(self._ends.tolist()).diff()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(self._ids[self._ends[index] : self._ends[index + 1]], dtype=torch.long)


class EncodedRows(Dataset[Any]):
    """The dataset: an integer index gives an encoded row, a `MicroBatch` the padded batch of its window."""

    def __init__(
        self, rows: list[Row], prompts: TokenLists, answers: TokenLists, pad_id: int, report: EncodingReport
    ) -> None:
        self.rows, self.prompts, self.answers, self.pad_id, self.report = rows, prompts, answers, pad_id, report

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: MicroBatch) -> Prompts: ...
    def __getitem__(self, index: int | MicroBatch) -> EncodedRow | Prompts:
        if isinstance(index, MicroBatch):
            return self.collate([self[row] for row in index.rows], index.window)
        if not REPEATED <= index < len(self):
            raise IndexError(index)  # ends iteration over the dataset
        row = len(self) - 1 if index == REPEATED else index
        return EncodedRow(self.rows[row], self.prompts[row], self.answers[row], counted=index != REPEATED)

    def collate(self, encoded: Sequence[EncodedRow], window: WindowStep = ALONE) -> Prompts:
        """Padded batch of encoded rows."""
        return collate(encoded, self.pad_id, window)


def collate(encoded: Sequence[EncodedRow], pad_id: int, window: WindowStep = ALONE) -> Prompts:
    """Padded batch of encoded rows: prompts are padded on the left, answers on the right.

    Example:
        >>> short = EncodedRow(Row("0", []), torch.tensor([5]), torch.tensor([7, 2]))
        >>> long = EncodedRow(Row("1", []), torch.tensor([5, 6]), torch.tensor([2]))
        >>> batch = collate([short, long], pad_id=0)
        >>> batch.prompt_ids.tolist(), batch.answer_ids.tolist()
        ([[0, 5], [5, 6]], [[7, 2], [2, 0]])
    """
    prompt_ids, prompt_mask = pad_rows([item.prompt_ids for item in encoded], left=True, value=pad_id)  # [B, P]
    answer_ids, answer_mask = pad_rows([item.answer_ids for item in encoded], value=pad_id)  # [B, T]
    rows, counted = [item.row for item in encoded], torch.tensor([item.counted for item in encoded])  # [B]
    return Prompts(prompt_ids, prompt_mask, answer_ids, answer_mask, rows=rows, window=window, counted=counted)


@dataclass
class PromptEncoder:
    """Encodes rows to token ids. Rows that are too long are dropped and counted in a warning; no text is cut.

    Args:
        tokenizer: the policy's tokenizer, with a pad and an end token.
        template: turns a conversation into a prompt.
        max_prompt_tokens: maximum length of a prompt, with special tokens.
        max_answer_tokens: maximum length of an answer, with the end token.
        max_dropped_share: largest fraction of the rows that may be dropped; more is an error.

    Raises:
        InputError: a setting is out of range, the tokenizer lacks a token, a text has no tokens, or too many rows are
            too long.
    """

    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    max_prompt_tokens: int = 1024
    max_answer_tokens: int = 512
    max_dropped_share: float = 0.05

    def __post_init__(self) -> None:
        check_at_least("max_prompt_tokens", self.max_prompt_tokens, 1)
        check_at_least("max_answer_tokens", self.max_answer_tokens, 2)  # one token and the end token
        check_fraction("max_dropped_share", self.max_dropped_share)
        check_tokenizer(self.tokenizer)
        self.control = ControlText.of(self.tokenizer, self.template.markup)

    def encode(self, rows: Sequence[Row], name: str = "data") -> EncodedRows:
        """The rows that fit, encoded, with a report of the others. The log and errors begin with `name`."""
        if not rows:
            raise InputError(f"{name}: the source returned no rows. Check its settings.")
        encoded = self.fitting(rows)
        limits = (self.max_prompt_tokens, self.max_answer_tokens)
        check_dropped(encoded.report, name, limits, self.max_dropped_share)
        log_kept(encoded.rows, encoded.report, name)
        return encoded

    def fitting(self, rows: Sequence[Row]) -> EncodedRows:
        """The rows that fit, encoded, however few; the report of the others is neither checked nor logged."""
        report, kept = EncodingReport(len(rows)), list[Row]()
        prompts, answers = TokenLists(), TokenLists()
        for start in range(0, len(rows), CHUNK):
            chunk = [trimmed(row) for row in rows[start : start + CHUNK]]
            for row in chunk:
                check_row(row)
            fits = [
                (row, prompt, answer)
                for row, prompt, answer in zip(
                    chunk, self.template.encode_all(chunk, self.tokenizer), self._answer_ids(chunk), strict=True
                )
                if self._fits(row, prompt, answer, report)
            ]
            report.unknown_texts += [row.origin for row, *ids in fits if self._unknown(row, *ids)]
            report.control_texts += [row.origin for row, *_ in fits if self.control.in_row(row)]
            kept += [row for row, _, _ in fits]
            prompts.extend([prompt for _, prompt, _ in fits])
            answers.extend([answer for _, _, answer in fits])
        return EncodedRows(kept, prompts, answers, int(self.tokenizer.pad_token_id), report)

    def _answer_ids(self, rows: Sequence[Row]) -> list[list[int]]:
        """Answer tokens as they follow the marker, with the end; an empty list for a row without an answer."""
        markup, texts = self.template.markup, [row.answer or "" for row in rows]
        held = [self.control.found(text) for text in texts]
        if markup is None:
            encoded, end_ids = token_ids(texts, self.tokenizer), [int(self.tokenizer.eos_token_id)]
        else:
            texts = [markup.separator + text + (markup.end_text or "") if text else "" for text in texts]
            encoded, end_ids = continuations(markup.marker, texts, self.tokenizer), markup.end_stops()
        for index in [index for index, holds in enumerate(held) if holds]:
            encoded[index] = self.control.text_ids(texts[index], inside=markup is not None)
        for row, ids in zip(rows, encoded, strict=True):
            if row.answer is not None and not ids:
                raise InputError(f"{row.origin}: the answer has no tokens. Correct or remove the row.")
        return [[*ids, *end_ids] if ids else [] for ids in encoded]

    def _fits(self, row: Row, prompt: list[int], answer: list[int], report: EncodingReport) -> bool:
        if not prompt:
            raise InputError(f"{row.origin}: the prompt has no tokens. Correct or remove the row.")
        if len(prompt) > self.max_prompt_tokens:
            report.long_prompts.append(row.origin)
        elif len(answer) > self.max_answer_tokens:
            report.long_answers.append(row.origin)
        elif self._holds_end(row):
            report.ended_answers.append(row.origin)
        else:
            return True
        return False

    def _unknown(self, row: Row, *ids: list[int]) -> bool:
        """True if a turn or the answer consists of tokens that the tokenizer does not know."""
        unknown = unknown_id(self.tokenizer)
        if unknown is None or not any(unknown in part for part in ids):
            return False
        texts = [*(turn["content"] for turn in row.messages), *([row.answer] if row.answer else [])]
        known = [[token for token in part if token != unknown] for part in token_ids(texts, self.tokenizer)]
        return not all(part and str(self.tokenizer.decode(part)).strip() for part in known)

    def _holds_end(self, row: Row) -> bool:
        """True if the answer would be cut where it holds the end of answers."""
        end = None if self.template.markup is None else self.template.markup.end_text
        return end is not None and end in (row.answer or "")


def trimmed(row: Row) -> Row:
    """The row without white space around its answer, which would change the tokens of the answer and of its end."""
    if row.answer is None or row.answer == row.answer.strip():
        return row
    return replace(row, answer=row.answer.strip())


def unknown_id(tokenizer: Any) -> int | None:
    """Id of the token for what a tokenizer does not know; None if it knows all text."""
    token = tokenizer.unk_token_id
    if token is None:  # of the model alone
        model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
        text = getattr(model, "unk_token", None)
        token = None if text is None else tokenizer.backend_tokenizer.token_to_id(text)
    return None if token == tokenizer.eos_token_id else token  # as of byte-level tokenizers, which never use it
