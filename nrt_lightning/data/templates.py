"""Templates: from a conversation to the text and token ids of a prompt."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from nrt_lightning.data.control_text import ControlText
from nrt_lightning.errors import InputError
from nrt_lightning.functional.continuation import token_ids
from nrt_lightning.structures import Markup, Row

Template = TypeVar("Template", bound="PromptTemplate")


@dataclass(frozen=True)
class WorkedExample:
    """A question with a trace and its answer, shown before the question that is asked.

    Args:
        question: as a row has it.
        trace: the reasoning.
        answer: the answer alone.
    """

    question: str
    trace: str
    answer: str


class PromptTemplate(ABC):
    """Base class of templates; a subclass implements `render`."""

    # jsonargparse looks annotations up in the modules of subclasses, so these have none.
    add_special_tokens = True  # False if the rendered text contains them
    markup = None  # type: Markup | None  # of the policy, which texts and worked examples name

    @abstractmethod
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """The text of the prompt. The trace follows it.

        Raises:
            InputError: the template does not support the row or the tokenizer.
        """

    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """An equivalent chat template in Jinja, for other libraries; None if there is none."""
        return None

    def turn_end(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """The token with which the template ends a turn of the assistant; None for the tokenizer's end token."""
        return None

    def with_markup(self: Template, markup: Markup) -> Template:
        """A copy that writes this marker where its texts say `{marker}`, and in worked examples."""
        other = copy.copy(self)
        other.markup = markup
        return other

    def filled(self, text: str) -> str:
        """A text of the template with the marker in it."""
        return text.replace("{marker}", self._markup.marker.strip()) if "{marker}" in text else text

    def completion(self, example: WorkedExample) -> str:
        """What a worked example shows after its question."""
        return f"{example.trace}{self._markup.marker}{self._markup.separator}{example.answer}"

    @property
    def _markup(self) -> Markup:
        if self.markup is None:
            raise InputError(
                f"{type(self).__name__} names the marker, which only a policy knows. Use the data with a module, or "
                "call template.with_markup(policy.markup)."
            )
        return self.markup

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The token ids of a prompt."""
        return self.encode_all([row], tokenizer)[0]

    def encode_all(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The token ids of many prompts, not truncated; much faster than one call per prompt.

        Control tokens of the template are control tokens; the same text inside a row is text.
        """
        control = ControlText.of(tokenizer, self.markup)
        held = {n for n, row in enumerate(rows) if any(control.found(turn["content"]) for turn in row.messages)}
        texts = ["" if n in held else self.render(row, tokenizer) for n, row in enumerate(rows)]
        encoded = token_ids(texts, tokenizer, add_special_tokens=self.add_special_tokens)
        for n in held:
            row, hidden = control.hide(rows[n])
            encoded[n] = hidden.encode(self.render(row, tokenizer), add_special_tokens=self.add_special_tokens)
        if self.add_special_tokens:  # some tokenizers append the end token, which must not precede the trace
            return [without_end(ids, tokenizer) for ids in encoded]
        return encoded


def without_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a text without the end token that some tokenizers append."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def in_jinja(value: Any) -> str:
    """A value as Jinja writes it: quotes and characters as they are, None, true and false by their names."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
