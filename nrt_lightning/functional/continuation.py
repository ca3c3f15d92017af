"""Token ids of a text that continues another, as a model would write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NEUTRAL = ("a", "\n", "0", ".", " ")  # texts after which the tokens of a text are looked at


def token_ids(texts: Sequence[str], tokenizer: Any, *, add_special_tokens: bool = False) -> list[list[int]]:
    """The token ids of many texts, neither truncated nor padded, whatever the tokenizer's defaults are."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=add_special_tokens,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return encoded["input_ids"]


def continuations(before: str, texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The token ids of texts that stand after `before`.

    A tokenizer may write a text differently at the start of a line. Where a token would reach across the boundary, the
    text is tokenized after a neutral character instead.

    Args:
        before: the text before.
        texts: that follow it, each by itself.
        tokenizer: of transformers.

    Returns:
        Ids whose text is that of `texts`.
    """
    found: list[list[int] | None] = [[] if text == "" else None for text in texts]
    for start in (before, *(start for start in NEUTRAL if start != before)):
        left = [index for index, ids in enumerate(found) if ids is None]
        if not left:
            break
        [first, *whole] = token_ids([start, *(start + texts[index] for index in left)], tokenizer)
        for index, ids in zip(left, whole, strict=True):
            if len(ids) > len(first) and ids[: len(first)] == first:
                found[index] = ids[len(first) :]
    return [token_ids([text], tokenizer)[0] if ids is None else ids for text, ids in zip(texts, found, strict=True)]
