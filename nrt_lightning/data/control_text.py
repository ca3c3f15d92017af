"""Text of rows that a tokenizer would read as control tokens. It stays text: no row can end a turn or an answer."""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.functional.continuation import continuations, token_ids
from nrt_lightning.structures import Markup, Row

PRIVATE = range(0xE000, 0xF8FF)  # characters that no text uses


class ControlText:
    """Finds control tokens in texts of rows, and tokenizes such texts as ordinary text.

    Args:
        tokenizer: of the policy.
        markup: with a marker and an end of answers, which are control too if they are tokens.

    Example:
        >>> from nrt_lightning import Policy
        >>> tokenizer = Policy("embedded:registers-base").tokenizer
        >>> control = ControlText(tokenizer)
        >>> control.found("a</s>b"), control.found("a</sb")
        (True, False)
        >>> ids = control.text_ids("</s>")
        >>> tokenizer.decode(ids), tokenizer.eos_token_id in ids
        ('</s>', False)
    """

    def __init__(self, tokenizer: Any, markup: Markup | None = None) -> None:
        self.tokenizer = tokenizer
        tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        tokens.update(tokenizer.all_special_tokens)
        if markup is not None:
            tokens.update([markup.marker] * markup.marker_token + [markup.end] * markup.end_token)
        names = sorted((re.escape(token) for token in tokens if token.strip()), key=len, reverse=True)
        self.pattern = re.compile("|".join(names)) if names else None

    @classmethod
    def of(cls, tokenizer: Any, markup: Markup | None = None) -> ControlText:
        """The one of a tokenizer; its thousands of tokens are collected once, and again if some are added."""
        return _made(tokenizer, markup, len(tokenizer))

    def found(self, text: str) -> bool:
        """True if the tokenizer would read a control token in a text."""
        return self.pattern is not None and self.pattern.search(text) is not None

    def in_row(self, row: Row) -> bool:
        """True if a turn or the answer of a row holds control text."""
        return any(self.found(turn["content"]) for turn in row.messages) or self.found(row.answer or "")

    def text_ids(self, text: str, *, inside: bool = False) -> list[int]:
        """Token ids of a text of a row, without control tokens.

        Args:
            text: the text.
            inside: True if it continues another text.
        """
        ids: list[int] = []
        assert self.pattern is not None
        for part in re.split(f"({self.pattern.pattern})", text):
            # Cut after its first character, a control token is no token any more.
            for piece in (part[:1], part[1:]) if self.pattern.fullmatch(part) else (part,):
                if self.found(piece):
                    ids += self.text_ids(piece, inside=True)
                elif piece:
                    ids += self._plain(piece, inside=inside or bool(ids))
        return ids

    def _plain(self, text: str, *, inside: bool) -> list[int]:
        return (continuations("a", [text], self.tokenizer) if inside else token_ids([text], self.tokenizer))[0]

    def hide(self, row: Row) -> tuple[Row, Hidden]:
        """A copy of a row in which a private character stands for each control text, and what they stand for."""
        assert self.pattern is not None
        texts = [turn["content"] for turn in row.messages]
        used = set("".join(texts))
        free = (chr(code) for code in PRIVATE if chr(code) not in used)
        characters: dict[str, str] = {}  # by control text

        def replaced(match: re.Match[str]) -> str:
            if match[0] not in characters:
                character = next(free, None)
                if character is None:
                    raise InputError(f"{row.origin}: no private character is left for {match[0]!r}. Remove the row.")
                characters[match[0]] = character
            return characters[match[0]]

        messages = [turn | {"content": self.pattern.sub(replaced, turn["content"])} for turn in row.messages]
        return dataclasses.replace(row, messages=messages), Hidden(self, {c: text for text, c in characters.items()})


@lru_cache(maxsize=4)
def _made(tokenizer: Any, markup: Markup | None, size: int) -> ControlText:
    return ControlText(tokenizer, markup)


@dataclasses.dataclass
class Hidden:
    """The control texts of a row by the characters that stand for them."""

    control: ControlText
    texts: dict[str, str]

    def encode(self, rendered: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt: the template's control tokens are control, those of the row are text.

        Args:
            rendered: the prompt of the row with hidden texts.
            add_special_tokens: the tokenizer adds its own.
        """
        ids: list[int] = []
        tokenizer = self.control.tokenizer
        for part in re.split(f"([{''.join(self.texts)}])", rendered):
            if part in self.texts:
                ids += self.control.text_ids(self.texts[part], inside=True)
            elif not ids:  # an empty text still has the tokenizer's own tokens
                ids += token_ids([part], tokenizer, add_special_tokens=add_special_tokens)[0]
            elif part:
                ids += continuations("a", [part], tokenizer)[0]
        return ids
