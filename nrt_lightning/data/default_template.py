"""The template that a policy is given: the setting, or the one that suits the tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from nrt_lightning.data.chat_template import ChatTemplate
from nrt_lightning.data.plain_template import PlainTemplate
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.structures import Markup, Row

ASKS_FOR_REASONING = "Question: {question}\nThink step by step, then answer.\nReasoning:"
NAMES_THE_MARKER = 'Question: {question}\nThink step by step, then write "{marker}" and the answer alone.\nReasoning:'
ALONE = "and the answer alone."
INSTRUCTION = f'Think step by step, then write "{{marker}}" {ALONE}'


def default_template(tokenizer: PreTrainedTokenizerBase, markup: Markup | None = None) -> PromptTemplate:
    """The template for `template: null`: the tokenizer's chat template, or a plain text that asks for reasoning.

    A marker that is text is named; a token is learned, or known as the end of thought.

    Args:
        tokenizer: of the policy.
        markup: of the policy; None if there is no policy.
    """
    named = markup is not None and not markup.marker_token
    if tokenizer.chat_template:
        named = named and ALONE not in str(tokenizer.chat_template)  # of an export: the instruction is in it
        return ChatTemplate(instruction=INSTRUCTION if named else None)
    return PlainTemplate(NAMES_THE_MARKER if named else ASKS_FOR_REASONING)


def fit_together(
    template: PromptTemplate | None, tokenizer: PreTrainedTokenizerBase, policy: Any = None
) -> PromptTemplate:
    """The template with the policy's marker; answers of the policy end as the template's turns do.

    Args:
        template: the setting; None for `default_template`.
        tokenizer: of the data.
        policy: a `Policy`; None, or one without markup, for answers that follow the prompt and end with the end token.
    """
    markup = getattr(policy, "markup", None)
    template = template or default_template(tokenizer, markup)
    if markup is None:
        return template
    policy.follow(template.turn_end(tokenizer))
    return template.with_markup(policy.markup)


def prompt_example(template: PromptTemplate, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """What a reader needs to check prompts: the template, and the prompt and the answer of one row.

    >>> print(prompt_example(PlainTemplate("{question}="), Row("0", [{"role": "user", "content": "1+1"}], "2"), None))
    Prompts are made by PlainTemplate(template='{question}=', system_prompt=None, examples=[]). The first one:
    | 1+1=
    Its reference answer: 2
    """
    prompt, markup = template.render(row, tokenizer), template.markup
    shown = "\n| ".join([f"Prompts are made by {template}. The first one:", *(prompt.splitlines() or [""])])
    if row.answer is not None:
        shown += f"\nIts reference answer: {row.answer}"
    if markup is not None:
        shown += f"\nBetween trace and answer: {markup}."
    if markup is not None and not markup.marker_token and markup.marker.strip() not in prompt:
        shown += (
            f" The prompt does not name {markup.marker.strip()!r}, so the policy may not write it: show it in "
            "data.template.examples, or name it with {marker} in an instruction."
        )
    return shown
