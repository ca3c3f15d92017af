"""Texts of token ids."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from nrt_lightning.structures import Row

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Prompts


def decode(policy: Policy, ids: Tensor, mask: Tensor) -> list[str]:
    """The text of the tokens under the mask, for every row of ids `[N, C]`, without special tokens."""
    rows = [i[m].tolist() for i, m in zip(ids, mask, strict=True)]
    return policy.tokenizer.batch_decode(rows, skip_special_tokens=True)


def decode_answers(policy: Policy, ids: Tensor, mask: Tensor) -> list[str]:
    """The text of answers `[N, T]`, without their end and without white space around them.

    Other special tokens stay in the text: an answer that repeats the marker is not the answer without it.
    """
    ends = set(policy.eos_ids)
    rows = [i[m].tolist() for i, m in zip(ids, mask, strict=True)]
    rows = [row[:-1] if row and row[-1] in ends else row for row in rows]
    return [policy.markup.answer_of(text) for text in policy.tokenizer.batch_decode(rows, skip_special_tokens=False)]


def with_rows(prompts: Prompts, policy: Policy) -> Prompts:
    """The prompts with the texts that their ids encode, where these were not given."""
    if prompts.rows:
        return prompts
    questions = decode(policy, prompts.prompt_ids, prompts.prompt_mask)
    answers = decode_answers(policy, prompts.answer_ids, prompts.answer_mask)
    made = [
        Row(f"row {number} of its batch", [{"role": "user", "content": question}], answer)
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    return dataclasses.replace(prompts, rows=made)
