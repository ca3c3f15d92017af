"""Texts of token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.models.policy.policy import Policy


def decode(policy: Policy, ids: Tensor, mask: Tensor) -> list[str]:
    """The text of the tokens under the mask, for every row of ids `[N, C]`, without special tokens."""
    rows = [i[m].tolist() for i, m in zip(ids, mask, strict=True)]
    return policy.tokenizer.batch_decode(rows, skip_special_tokens=True)


def decode_answers(policy: Policy, ids: Tensor, mask: Tensor) -> list[str]:
    """The text of answers, without their end and without white space around them."""
    return [policy.markup.answer_of(text) for text in decode(policy, ids, mask)]
