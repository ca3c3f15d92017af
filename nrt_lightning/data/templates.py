"""Templates: from a conversation to the text and token ids of a prompt."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row


class PromptTemplate(ABC):
    """Base class of templates; a subclass implements `render`."""

    add_special_tokens: ClassVar[bool] = True  # False if the rendered text contains them

    @abstractmethod
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """The text of the prompt. The trace follows it.

        Raises:
            InputError: the template does not support the row or the tokenizer.
        """

    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """An equivalent chat template in Jinja, for other libraries; None if there is none."""
        return None

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The token ids of a prompt."""
        return self.encode_all([row], tokenizer)[0]

    def encode_all(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The token ids of many prompts, not truncated; much faster than one call per prompt."""
        texts = [self.render(row, tokenizer) for row in rows]
        encoded = token_ids(texts, tokenizer, add_special_tokens=self.add_special_tokens)
        if self.add_special_tokens:  # some tokenizers append the end token, which must not precede the trace
            return [ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids for ids in encoded]
        return encoded


def token_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool = False
) -> list[list[int]]:
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


@dataclass
class PlainTemplate(PromptTemplate):
    """A text with `{question}` in it, for models without a chat format.

    The tokenizer adds its special tokens, such as bos. Rows must have a single question; conversations need
    `ChatTemplate`.

    Args:
        template: text with `{question}` in it; other braces are kept.
        system_prompt: text before the template, separated by an empty line; a system turn of the row replaces it.

    Raises:
        InputError: `template` lacks `{question}`, or a row has several turns.

    Example:
        >>> row = Row("0", [{"role": "user", "content": "1 + 1?"}])
        >>> PlainTemplate("Question: {question}\\nReasoning:", system_prompt="Think.").render(row, None)
        'Think.\\n\\nQuestion: 1 + 1?\\nReasoning:'
    """

    template: str = "{question}"
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise InputError(f"template={self.template!r} lacks {{question}}. Add it where the question belongs.")

    @override
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        system, turns = self.system_prompt, row.messages
        if turns[0]["role"] == "system":
            system, turns = turns[0]["content"], turns[1:]
        if len(turns) != 1:
            raise InputError(
                f"{row.origin}: PlainTemplate takes a single question, but the row has {len(turns)} turns. "
                "Use ChatTemplate or remove the row."
            )
        text = self.template.replace("{question}", turns[0]["content"])
        return f"{system}\n\n{text}" if system else text

    @override
    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str:
        ids = token_ids(["x"], tokenizer, add_special_tokens=True)[0]
        bos = "{{ bos_token }}" if ids[0] == tokenizer.bos_token_id else ""
        system = "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + \"\\n\\n\" }}"
        if self.system_prompt:
            system += "{% else %}{{ " + json.dumps(self.system_prompt + "\n\n") + " }}"
        question = "messages[-1]['content']".join(
            f" ~ {json.dumps(part)} ~ " for part in self.template.split("{question}")
        )
        return f"{bos}{system}{{% endif %}}{{{{ '' {question} '' }}}}"


@dataclass
class ChatTemplate(PromptTemplate):
    """The tokenizer's chat template, ending with the start of the assistant's turn.

    Args:
        system_prompt: system turn of conversations that have none.
        kwargs: more variables for the chat template, such as `enable_thinking`.
        template: a chat template in Jinja; null for the tokenizer's.

    Raises:
        InputError: the tokenizer has no chat template, or the template raises an error for a conversation.
    """

    system_prompt: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    template: str | None = None

    add_special_tokens: ClassVar[bool] = False

    @override
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        if not self.template and not tokenizer.chat_template:
            raise InputError(
                f"The tokenizer '{tokenizer.name_or_path}' has no chat template. Use PlainTemplate, or set `template` "
                "of ChatTemplate."
            )
        turns = row.messages
        if self.system_prompt and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system_prompt}, *turns]
        try:
            text = tokenizer.apply_chat_template(
                turns, chat_template=self.template, tokenize=False, add_generation_prompt=True, **self.kwargs
            )
        except Exception as error:  # chat templates are programs and raise many kinds
            raise InputError(
                f"{row.origin}: the chat template failed for this conversation ({type(error).__name__}: {error}). "
                "Correct or remove the row, or check system_prompt and kwargs of ChatTemplate."
            ) from error
        assert isinstance(text, str)
        return text

    @override
    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        template = self.template or tokenizer.chat_template
        if not isinstance(template, str):
            return None
        lines = [
            f"{{%- if {name} is not defined %}}{{%- set {name} = {json.dumps(value)} %}}{{%- endif %}}"
            for name, value in self.kwargs.items()
        ]
        if self.system_prompt:
            turn = json.dumps([{"role": "system", "content": self.system_prompt}])
            lines.append(
                f"{{%- if messages[0]['role'] != 'system' %}}{{%- set messages = {turn} + messages %}}{{%- endif %}}"
            )
        return "".join(lines) + template


ASKS_FOR_REASONING = "Question: {question}\nThink step by step, then answer.\nReasoning:"


def default_template(tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
    """The template for `template: null`: the tokenizer's chat template, or a plain text that asks for reasoning."""
    return ChatTemplate() if tokenizer.chat_template else PlainTemplate(ASKS_FOR_REASONING)


def prompt_example(template: PromptTemplate, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """What a reader needs to check prompts: the template, and the prompt and the answer of one row.

    >>> print(prompt_example(PlainTemplate("{question}="), Row("0", [{"role": "user", "content": "1+1"}], "2"), None))
    Prompts are made by PlainTemplate(template='{question}=', system_prompt=None). The first one:
    | 1+1=
    Its reference answer: 2
    """
    prompt = template.render(row, tokenizer).splitlines() or [""]
    answer = "" if row.answer is None else f"\nIts reference answer: {row.answer}"
    return "\n| ".join([f"Prompts are made by {template}. The first one:", *prompt]) + answer
