"""Cuts traces into steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least

SENTENCE_ENDS = (". ", "! ", "? ", "\n")


class Segmentation(ABC):
    """Cuts the tokens of a trace into steps."""

    @abstractmethod
    def ends(self, ids: list[int], tokenizer: Any) -> list[int]:
        """The number of tokens up to the end of each step, ascending; the last is the length of the trace.

        Args:
            ids: tokens of the trace.
            tokenizer: of the policy.
        """

    def check(self, tokenizer: Any) -> None:  # noqa: B027  (most need no text)
        """Raise `InputError` if the tokenizer cannot write what ends a step."""


@dataclass(frozen=True)
class EveryTokens(Segmentation):
    """Steps of `n` tokens.

    Args:
        n: tokens of a step; the last may have fewer.

    Raises:
        InputError: if `n` is below 1.

    Example:
        >>> EveryTokens(2).ends([7, 8, 9], None)
        [2, 3]
    """

    n: int = 16

    def __post_init__(self) -> None:
        check_at_least("step_credit.segmentation.n", self.n, 1)

    def ends(self, ids: list[int], tokenizer: Any) -> list[int]:
        """Every n-th token, and the end."""
        return [*range(self.n, len(ids), self.n), len(ids)] if ids else []


@dataclass(frozen=True)
class AtText(Segmentation):
    """Steps that end with one of some texts, in whatever tokens it is written.

    Args:
        texts: that end a step.

    Raises:
        InputError: if there is no text; before training, if the tokenizer can write none of them.

    Example:
        >>> from nrt_lightning import Policy
        >>> tokenizer = Policy("embedded:registers-base").tokenizer
        >>> AtText([";"]).ends(tokenizer("b=1;c=2;d", add_special_tokens=False).input_ids, tokenizer)
        [4, 8, 9]
    """

    texts: Sequence[str] = ("\n",)

    def __post_init__(self) -> None:
        if not self.texts or not all(self.texts):
            raise InputError("step_credit.segmentation.texts is empty: give the texts that end a step.")

    def ends(self, ids: list[int], tokenizer: Any) -> list[int]:
        """The tokens with which one of the texts is complete, and the end."""
        found, since = [], ""
        for index, token in enumerate(ids, start=1):
            since += tokenizer.decode([token], clean_up_tokenization_spaces=False)
            if any(text in since for text in self.texts):
                found.append(index)
                since = ""
        return found if not ids or found[-1:] == [len(ids)] else [*found, len(ids)]

    def check(self, tokenizer: Any) -> None:
        """Refuse a tokenizer that can write none of the texts."""
        for text in self.texts:
            ids = tokenizer(f"a{text}a", add_special_tokens=False)["input_ids"]
            if text in tokenizer.decode(ids, clean_up_tokenization_spaces=False):
                return
        raise InputError(
            f"step_credit.segmentation cuts traces at {', '.join(map(repr, self.texts))}, which the tokenizer cannot "
            "write: every trace would be one step. Use EveryTokens, or AtText with other texts."
        )


@dataclass(frozen=True)
class Lines(AtText):
    """Steps that end with a line break."""


@dataclass(frozen=True)
class Sentences(AtText):
    """Steps that end with a sentence: a full stop, exclamation or question mark before a space, or a line break."""

    texts: Sequence[str] = SENTENCE_ENDS
