"""The commented place for worked examples in a config."""

from __future__ import annotations

import textwrap

from nrt_lightning.cli.starter.model import ModelFacts
from nrt_lightning.cli.starter.text import as_yaml
from nrt_lightning.data import ChatTemplate, PlainTemplate
from nrt_lightning.data.default_template import NAMES_THE_MARKER
from nrt_lightning.data.templates import PromptTemplate, WorkedExample
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

SHOWN = [WorkedExample("What is 6 + 9 - 8?", "6 + 9 = 15, 15 - 8 = 7", "7"),
         WorkedExample("What is 4 - 2 + 5?", "4 - 2 = 2, 2 + 5 = 7", "7")]  # fmt: skip
LIKE_THESE = Row("0", [{"role": "user", "content": "What is 3 + 9 - 5?"}])


def with_place(text: str, model: ModelFacts | None) -> str:
    """The config with a commented template with worked examples that suits the model."""
    if model is None:
        return text
    given, found = place(PlainTemplate(NAMES_THE_MARKER, examples=SHOWN)), place(template_with_examples(model))
    assert given in text
    return text.replace(given, found)


def template_with_examples(model: ModelFacts) -> PromptTemplate:
    """The default template with worked examples; a plain text if the chat template drops them."""
    tokenizer, _, markup = model.prepared
    default = model.template
    plain = PlainTemplate(default.template if isinstance(default, PlainTemplate) else NAMES_THE_MARKER, examples=SHOWN)
    if not isinstance(default, ChatTemplate):
        return plain.with_markup(markup)
    shown = ChatTemplate(instruction=default.instruction, examples=SHOWN).with_markup(markup)
    try:
        shown.render(LIKE_THESE, tokenizer)
    except InputError:
        return plain.with_markup(markup)
    return shown


def example_tokens(model: ModelFacts) -> int:
    """How many tokens of a prompt the worked examples take."""
    tokenizer = model.prepared[0]
    try:
        [shown], [bare] = (
            t.encode_all([LIKE_THESE], tokenizer) for t in (template_with_examples(model), model.template)
        )
    except InputError:  # a chat template that takes no such question; the rows will tell
        return 0
    return len(shown) - len(bare)


def place(template: PromptTemplate) -> str:
    """Lines of a comment that become a template with worked examples."""
    name = "template" if isinstance(template, PlainTemplate) else "instruction"
    value = getattr(template, name)
    own = "" if value is None else f"\n    {name}: {as_yaml(value)}"
    shown = "".join(
        f"\n      - {{question: {as_yaml(e.question)}, trace: {as_yaml(e.trace)}, answer: {as_yaml(e.answer)}}}"
        for e in SHOWN
    )
    text = f"template:\n  class_path: nrt_lightning.{type(template).__name__}\n  init_args:{own}\n    examples:{shown}"
    return textwrap.indent(text, "    # ")
