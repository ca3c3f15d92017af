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
    """The text of answers, without their end and without white space around them."""
    return [policy.markup.answer_of(text) for text in decode(policy, ids, mask)]


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
