"""Finds a text among sampled tokens, in whatever tokens it is written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from nrt_lightning.functional.continuation import token_ids


class Ending(IntEnum):
    """What ended a row."""

    LIMIT = 0
    TOKEN = 1  # a stop token
    TEXT = 2  # the stop text
    BEYOND = 3  # the stop text, inside a token that holds more text behind it


@dataclass(frozen=True)
class Found:
    """Where the stop text ends a row."""

    length: int  # tokens of the row, up to the one in which the stop text ends
    width: int  # the last of them that hold the stop text
    ending: Ending


class StopText:
    """Finds the first place where a text is complete.

    Args:
        tokenizer: of the policy.
        text: that ends a row.

    Example:
        >>> from nrt_lightning import Policy
        >>> tokenizer = Policy("embedded:registers-base").tokenizer
        >>> StopText(tokenizer, "b=").find(tokenizer("a=1b=2", add_special_tokens=False).input_ids)
        Found(length=5, width=2, ending=<Ending.TEXT: 2>)
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text
        # Some tokenizers drop the first space of a text, so an ordinary token stands in front.
        [self.anchor] = token_ids(["a"], tokenizer)
        self.skip = len(self.decode([]))
        self.last = max(len(text.encode()), 1)  # tokens that can hold the text: at least a byte each
        self.may_end: dict[int, bool] = {}  # by token: the text may be complete after it

    def decode(self, ids: list[int]) -> str:
        """The text of ids after the anchor, special tokens included."""
        return self.tokenizer.decode(self.anchor + ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def candidate(self, token: int) -> bool:
        """False if the text cannot be complete after this token."""
        known = self.may_end.get(token)
        if known is None:
            piece, text = self.decode([token])[self.skip :], self.text
            ends = text in piece or any(piece.startswith(text[start:]) for start in range(1, len(text)))
            part_of_character = "\ufffd" in piece and not text.isascii()
            known = self.may_end[token] = ends or part_of_character
        return known

    def find(self, ids: list[int], start: int = 0) -> Found | None:
        """The first place at which the text is complete, at token `start` or later; None if there is none."""
        for index in range(start, len(ids)):
            if self.candidate(ids[index]) and (found := self.at(ids[: index + 1])) is not None:
                return found
        return None

    def at(self, ids: list[int]) -> Found | None:
        """Where the text stands if it becomes complete with the last of these tokens."""
        first = max(0, len(ids) - self.last - 1)
        before = [self.decode(ids[first:stop])[self.skip :] for stop in range(first, len(ids) + 1)]  # up to each token
        place = before[-1].find(self.text)
        if place < 0 or self.text in before[-2]:
            return None
        beyond = len(before[-1]) > place + len(self.text)
        if beyond:  # every token that holds some of the text
            begin = max(index for index, text in enumerate(before[:-1]) if len(text) <= place)
            return Found(len(ids), len(ids) - first - begin, Ending.BEYOND)
        # A token in which the text begins after other text belongs to what precedes it, unless it is the only one.
        begins = (index for index, text in enumerate(before[:-1]) if len(text) >= place)
        return Found(len(ids), len(ids) - first - next(begins, len(before) - 2), Ending.TEXT)
