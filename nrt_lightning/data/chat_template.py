"""The tokenizer's chat template as the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from nrt_lightning.data.templates import PromptTemplate, WorkedExample, in_jinja
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row


@dataclass
class ChatTemplate(PromptTemplate):
    """The tokenizer's chat template, ending with the start of the assistant's turn.

    Args:
        system_prompt: system turn of conversations that have none; `{marker}` stands for the marker.
        kwargs: more variables for the chat template, such as `enable_thinking`.
        template: a chat template in Jinja; null for the tokenizer's.
        instruction: text after the question, separated by an empty line; `{marker}` stands for the marker.
        examples: worked examples before the question, as turns.

    Raises:
        InputError: the tokenizer has no chat template, or the template raises an error for a conversation, or it drops
            the question or the traces of the examples.
    """

    system_prompt: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    instruction: str | None = None
    examples: list[WorkedExample] = field(default_factory=list)

    add_special_tokens = False

    @override
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        if not self.template and not tokenizer.chat_template:
            raise InputError(
                f"The tokenizer '{tokenizer.name_or_path}' has no chat template. Use PlainTemplate, or set `template` "
                "of ChatTemplate."
            )
        try:
            text = self._applied(self._turns(row.messages), tokenizer, add_generation_prompt=True)
        except InputError:
            raise
        except Exception as error:  # chat templates are programs and raise many kinds
            raise InputError(
                f"{row.origin}: the chat template failed for this conversation ({type(error).__name__}: {error}). "
                "Correct or remove the row, or check system_prompt and kwargs of ChatTemplate."
            ) from error
        if row.question.strip() not in text and without_space(row.question) not in without_space(text):
            raise InputError(
                f"{row.origin}: the chat template drops or changes the question. It may expect `content` to be a list "
                "of parts. Give one that takes texts: `template` of ChatTemplate."
            )
        if any(self.completion(example).strip() not in text for example in self.examples):
            raise InputError(
                "The chat template drops or changes the worked examples of ChatTemplate, as templates of thinking "
                "models drop earlier traces. Remove `examples`, or set another `template`."
            )
        return text

    def _applied(self, turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, **settings: Any) -> str:
        text = tokenizer.apply_chat_template(
            turns, chat_template=self.template, tokenize=False, **settings, **self.kwargs
        )
        assert isinstance(text, str)
        return text

    def _turns(self, turns: list[dict[str, str]]) -> list[dict[str, str]]:
        """The conversation with system prompt, worked examples and instruction."""
        system = turns[:1] if turns[0]["role"] == "system" else []
        rest = turns[len(system) :]
        if self.system_prompt and not system:
            system = [{"role": "system", "content": self.filled(self.system_prompt)}]
        return [*system, *self._shown(), *rest[:-1], {**rest[-1], "content": self._asked(rest[-1]["content"])}]

    def _asked(self, question: str) -> str:
        return f"{question}\n\n{self.filled(self.instruction)}" if self.instruction else question

    def _shown(self) -> list[dict[str, str]]:
        """The worked examples as turns."""
        turns = []
        for example in self.examples:
            turns.append({"role": "user", "content": self._asked(example.question)})
            turns.append({"role": "assistant", "content": self.completion(example)})
        return turns

    @override
    def turn_end(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        said = "ANSWER-TEXT"
        turns = [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": said}]
        try:
            rest = self._applied(turns, tokenizer).rpartition(said)[2].lstrip()
        except Exception:  # a template that takes no such conversation; `render` reports its faults
            return None
        tokens = [str(token) for token in tokenizer.added_tokens_decoder.values() if rest.startswith(str(token))]
        return max(tokens, key=len) if tokens else None

    @override
    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        template = self.template or tokenizer.chat_template
        if not isinstance(template, str):
            return None
        lines = [when(f"{name} is not defined", name, in_jinja(value)) for name, value in self.kwargs.items()]
        has_system = "messages[0]['role'] == 'system'"
        if self.instruction:
            asked = in_jinja("\n\n" + self.filled(self.instruction))
            last = f"[{{'role': 'user', 'content': messages[-1]['content'] + {asked}}}]"
            lines.append(when("messages[-1]['role'] == 'user'", "messages", f"messages[:-1] + {last}"))
        if self.examples:
            shown = in_jinja(self._shown())
            lines.append(f"{{%- set first = 1 if {has_system} else 0 %}}")
            lines.append(f"{{%- set messages = messages[:first] + {shown} + messages[first:] %}}")
        if self.system_prompt:
            turn = in_jinja([{"role": "system", "content": self.filled(self.system_prompt)}])
            lines.append(when(f"not {has_system}", "messages", f"{turn} + messages"))
        return "".join(lines) + template


def when(condition: str, name: str, value: str) -> str:
    """Jinja that sets a variable under a condition."""
    return f"{{%- if {condition} %}}{{%- set {name} = {value} %}}{{%- endif %}}"


def without_space(text: str) -> str:
    """The text without white space, which templates may change."""
    return "".join(text.split())
