"""A text as the prompt, for models without a chat format."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from nrt_lightning.data.templates import PromptTemplate, WorkedExample, in_jinja, without_end
from nrt_lightning.errors import InputError
from nrt_lightning.functional.continuation import token_ids
from nrt_lightning.structures import Markup, Row  # noqa: F401  (Markup: in the example)


@dataclass
class PlainTemplate(PromptTemplate):
    """A text with `{question}` in it, for models without a chat format.

    The tokenizer adds its special tokens, such as bos. Rows must have a single question; conversations need
    `ChatTemplate`.

    Args:
        template: text with `{question}` in it, and `{marker}` where it names the marker; other braces are kept.
        system_prompt: text before everything else, separated by an empty line; a system turn of the row replaces it.
        examples: worked examples before the question, in the same form: question, trace, marker, answer.

    Raises:
        InputError: `template` lacks `{question}`, or a row has several turns.

    Example:
        >>> row = Row("0", [{"role": "user", "content": "1 + 1?"}])
        >>> PlainTemplate("Question: {question}\\nReasoning:", system_prompt="Think.").render(row, None)
        'Think.\\n\\nQuestion: 1 + 1?\\nReasoning:'
        >>> template = PlainTemplate("Q: {question}\\nA:", examples=[WorkedExample("1 + 2?", "1 + 2 = 3", "3")])
        >>> template.with_markup(Markup(" =>", (7, 8), marker_token=False)).render(row, None)
        'Q: 1 + 2?\\nA: 1 + 2 = 3 =>3\\n\\nQ: 1 + 1?\\nA:'
    """

    template: str = "{question}"
    system_prompt: str | None = None
    examples: list[WorkedExample] = field(default_factory=list)

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise InputError(f"template={self.template!r} lacks {{question}}. Add it where the question belongs.")

    @override
    def render(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        system, turns = self.filled(self.system_prompt or ""), row.messages
        if turns[0]["role"] == "system":
            system, turns = turns[0]["content"], turns[1:]
        if len(turns) != 1:
            raise InputError(
                f"{row.origin}: PlainTemplate takes a single question, but the row has {len(turns)} turns. "
                "Use ChatTemplate or remove the row."
            )
        text = self._shown() + self._asked(turns[0]["content"])
        return f"{system}\n\n{text}" if system else text

    def _asked(self, question: str) -> str:
        return question.join(self.filled(self.template).split("{question}"))

    def _shown(self) -> str:
        """The worked examples."""
        space = "" if self.template[-1:].isspace() else " "
        text = ""
        for example in self.examples:
            end = self._markup.end_text or ""  # a token that ends a text would end the prompt
            end += "" if end.endswith("\n") else "\n\n"
            text += self._asked(example.question) + space + self.completion(example) + end
        return text

    @override
    def jinja(self, tokenizer: PreTrainedTokenizerBase) -> str:
        system = "{% if messages[0]['role'] == 'system' %}"
        system += "{{ messages[0]['content'] + \"\\n\\n\" if messages[0]['content'] else '' }}"
        if self.system_prompt:
            system += "{% else %}{{ " + in_jinja(self.filled(self.system_prompt) + "\n\n") + " }}"
        question = "messages[-1]['content']".join(
            f" ~ {in_jinja(part)} ~ " for part in self.filled(self.template).split("{question}")
        )
        return f"{self._start(tokenizer)}{system}{{% endif %}}{{{{ {in_jinja(self._shown())} {question} '' }}}}"

    def _start(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """What the tokenizer adds before a text, in Jinja: bos, and the space that some write before a first word."""
        texts = ["x", "1 x"]
        own = [without_end(ids, tokenizer) for ids in token_ids(texts, tokenizer, add_special_tokens=True)]
        bos = tokenizer.bos_token
        with_bos = [("{{ bos_token }}", bos), ("{{ bos_token }}{{ ' ' }}", f"{bos} ")] if bos else []
        for shown, start in (("", ""), *with_bos, ("{{ ' ' }}", " ")):
            if token_ids([f"{start}{text}" for text in texts], tokenizer) == own:
                return shown
        return ""
