"""How a conversation becomes the text of a prompt."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row


class PromptTemplate(ABC):
    """Writes prompts; a subclass implements `render`."""

    add_special_tokens: ClassVar[bool] = True  # False where the rendered text already holds bos and the like

    @abstractmethod
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt's text, after which the policy's trace begins.

        Raises:
            InputError: the row or the tokenizer does not suit the template.
        """

    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """The same prompts as a chat template, for other libraries; None where there is none."""
        return None

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The prompt's token ids."""
        return self.encode_all([row], tokenizer)[0]

    def encode_all(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The token ids of many prompts, uncut; much faster than one by one."""
        texts = [self.render(row, tokenizer) for row in rows]
        encoded = token_ids(texts, tokenizer, self.add_special_tokens)
        if self.add_special_tokens:  # some tokenizers also append the end token, but here the trace goes on
            return [ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids for ids in encoded]
        return encoded


def token_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool = False
) -> list[list[int]]:
    """The token ids of many texts, neither cut nor padded, whatever the tokenizer does by itself."""
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
    """A text with a place for the question, for models without a chat format.

    The tokenizer's own special tokens (bos) are added. Takes single questions only; conversations need
    `ChatTemplate`.

    Args:
        template: text with `{question}` in it; other braces stay as they are.
        system_prompt: put before the text with an empty line between; a row's own system turn goes before it.

    Raises:
        InputError: `template` has no `{question}`, or a row has several turns.

    Example:
        >>> row = Row("0", [{"role": "user", "content": "1 + 1?"}])
        >>> PlainTemplate("Question: {question}\\nReasoning:", system_prompt="Think.").render(row, None)
        'Think.\\n\\nQuestion: 1 + 1?\\nReasoning:'
    """

    template: str = "{question}"
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise InputError(f"template={self.template!r} has no place for the question. Write {{question}} in it.")

    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt's text."""
        system, turns = self.system_prompt, row.messages
        if turns[0]["role"] == "system":
            system, turns = turns[0]["content"], turns[1:]
        if len(turns) != 1:
            raise InputError(
                f"{row.origin}: PlainTemplate takes one question, this row has {len(turns)} turns. "
                "Use ChatTemplate or remove the row."
            )
        text = self.template.replace("{question}", turns[0]["content"])
        return f"{system}\n\n{text}" if system else text

    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The same prompts as a chat template: bos where the tokenizer writes it, system prompt, text."""
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
    """The tokenizer's own chat template, opened for the assistant's turn.

    Args:
        system_prompt: put before conversations that have no system turn of their own.
        kwargs: further variables of the chat template, such as `enable_thinking`.
        template: a chat template in Jinja, for tokenizers that have none; null for the tokenizer's own.

    Raises:
        InputError: the tokenizer has no chat template, or it refuses a conversation.
    """

    system_prompt: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    template: str | None = None

    add_special_tokens: ClassVar[bool] = False

    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt's text."""
        if not self.template and not tokenizer.chat_template:
            raise InputError(
                f"The tokenizer '{tokenizer.name_or_path}' has no chat template. Use PlainTemplate, or give one as "
                "the `template` of ChatTemplate."
            )
        turns = row.messages
        if self.system_prompt and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system_prompt}, *turns]
        try:
            text = tokenizer.apply_chat_template(
                turns, chat_template=self.template, tokenize=False, add_generation_prompt=True, **self.kwargs
            )
        except Exception as error:  # a chat template is a program of its own and raises what it likes
            raise InputError(
                f"{row.origin}: the chat template refuses this conversation ({type(error).__name__}: {error}). "
                "Mend or remove the row, or check the template's system_prompt and kwargs."
            ) from error
        assert isinstance(text, str)
        return text

    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """The chat template, with the system prompt and the variables as what holds unless others are given."""
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
