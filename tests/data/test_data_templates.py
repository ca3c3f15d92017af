import dataclasses

import pytest

from nrt_lightning.data import ChatTemplate, PlainTemplate, PromptTemplate, WorkedExample
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Markup, Row

QUESTION = [{"role": "user", "content": "1+1?"}]
SYSTEM = {"role": "system", "content": "Sum."}
LONGER = [*QUESTION, {"role": "assistant", "content": "2"}, {"role": "user", "content": "and 2?"}]


def row(messages):
    return Row("0", messages, "2", "f.jsonl:4")


def decoded(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def test_plain_template_adds_bos_and_keeps_other_braces(char_tokenizer):
    ids = PlainTemplate("{x} Q: {question}\n").encode(row(QUESTION), char_tokenizer)
    assert decoded(char_tokenizer, ids) == "<s>{x} Q: 1+1?\n"


def test_plain_template_keeps_braces_of_the_question(char_tokenizer):
    ids = PlainTemplate().encode(row([{"role": "user", "content": "{question} {0}"}]), char_tokenizer)
    assert decoded(char_tokenizer, ids) == "<s>{question} {0}"


def test_plain_template_leaves_no_end_token(make_tokenizer):
    tokenizer = make_tokenizer(appends_eos=True)
    assert tokenizer("1")["input_ids"][-1] == tokenizer.eos_token_id
    assert decoded(tokenizer, PlainTemplate().encode(row(QUESTION), tokenizer)) == "<s>1+1?"


def test_plain_template_system_prompt(char_tokenizer):
    template = PlainTemplate(system_prompt="Think.")
    assert template.render(row(QUESTION), char_tokenizer) == "Think.\n\n1+1?"
    assert template.render(row([SYSTEM, *QUESTION]), char_tokenizer) == "Sum.\n\n1+1?"


def test_plain_template_refuses_conversations(char_tokenizer):
    with pytest.raises(InputError, match=r"f.jsonl:4: .*3 turns.*ChatTemplate"):
        PlainTemplate().encode(row(LONGER), char_tokenizer)
    with pytest.raises(InputError, match=r"template='no question'.*\{question\}"):
        PlainTemplate("no question")


@pytest.mark.parametrize("messages", [QUESTION, [SYSTEM, *QUESTION], LONGER])
def test_chat_template_is_the_tokenizers_own(chat_tokenizer, messages):
    expected = chat_tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    ids = ChatTemplate().encode(row(messages), chat_tokenizer)
    assert ids == expected
    assert decoded(chat_tokenizer, ids).endswith("</s><assistant>")


def test_chat_template_system_prompt_and_variables(chat_tokenizer):
    template = ChatTemplate(system_prompt="Think.", kwargs={"hint": "go"})
    assert template.render(row(QUESTION), chat_tokenizer) == "<system>Think.</s><user>1+1?</s><assistant>go"
    assert template.render(row([SYSTEM, *QUESTION]), chat_tokenizer).startswith("<system>Sum.</s><user>")


def test_chat_template_errors(char_tokenizer, chat_tokenizer):
    with pytest.raises(InputError, match=r"chat template.*PlainTemplate.*`template`"):
        ChatTemplate().encode(row(QUESTION), char_tokenizer)
    with pytest.raises(InputError, match=r"f.jsonl:4: .*no tools here.*system_prompt"):
        ChatTemplate().encode(row([{"role": "tool", "content": "x"}]), chat_tokenizer)


def test_a_template_of_ones_own_is_one_method(char_tokenizer):
    class Shout(PromptTemplate):
        def render(self, row, tokenizer):
            return row.question.upper() + "!"

    rows = [row([{"role": "user", "content": text}]) for text in ("ab", "c")]
    assert [decoded(char_tokenizer, ids) for ids in Shout().encode_all(rows, char_tokenizer)] == ["<s>AB!", "<s>C!"]


EXAMPLES = [WorkedExample("1+2?", "1+2=3", "3"), WorkedExample("2+2?", "2+2=4", "4")]
TEXT = Markup(" =>", (7, 8), marker_token=False, separator=" ", end="\n\n", end_ids=(9,), end_token=False)
TOKEN = Markup("<|m|>", (7,), marker_token=True, end="</s>", end_ids=(2,))


def test_plain_examples_have_marker_and_end(char_tokenizer):
    template = PlainTemplate("q: {question}\na:", system_prompt="end with {marker}", examples=EXAMPLES)
    shown = template.with_markup(TEXT).render(row(QUESTION), char_tokenizer)
    assert shown == ("end with =>\n\nq: 1+2?\na: 1+2=3 => 3\n\nq: 2+2?\na: 2+2=4 => 4\n\nq: 1+1?\na:")
    shown = template.with_markup(TOKEN).render(row(QUESTION), char_tokenizer)
    assert shown.startswith("end with <|m|>\n\nq: 1+2?\na: 1+2=3<|m|>3\n\nq: 2+2?"), "no end token inside a prompt"
    assert template.markup is None, "the setting itself is unchanged"


@pytest.mark.parametrize("end", ["\n", "\n\n", "</answer>", ";\n"])
def test_examples_end_as_answers_do(char_tokenizer, end):
    markup = dataclasses.replace(TEXT, end=end)
    shown = PlainTemplate(examples=EXAMPLES).with_markup(markup).render(row(QUESTION), char_tokenizer)
    assert shown.count(f" => 3{end}") == 1
    assert shown.endswith("\n1+1?")


def test_the_question_is_text(char_tokenizer):
    template = PlainTemplate("{marker}: {question}", examples=EXAMPLES).with_markup(TEXT)
    asked = row([{"role": "user", "content": "{marker} {question}"}])
    assert template.render(asked, char_tokenizer).endswith("=>: {marker} {question}")


def test_a_template_that_names_the_marker_needs_one(char_tokenizer):
    for template in (PlainTemplate("{question} {marker}"), PlainTemplate(examples=EXAMPLES)):
        with pytest.raises(InputError, match="PlainTemplate names the marker"):
            template.render(row(QUESTION), char_tokenizer)


def test_chat_examples_are_turns(chat_tokenizer):
    template = ChatTemplate(system_prompt="Think.", instruction="End with {marker}.", examples=EXAMPLES[:1])
    expected = chat_tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": "1+2?\n\nEnd with =>."},
            {"role": "assistant", "content": "1+2=3 => 3"},
            {"role": "user", "content": "1+1?\n\nEnd with =>."},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert template.with_markup(TEXT).render(row(QUESTION), chat_tokenizer) == expected


def test_a_chat_template_that_drops_the_traces_is_refused(chat_tokenizer):
    drops = "{% for m in messages %}{{ m['role'] }}{{ m['content'].split('=>')[-1] }}{% endfor %}"
    template = ChatTemplate(template=drops, examples=EXAMPLES).with_markup(TEXT)
    with pytest.raises(InputError, match="drops or changes the worked examples"):
        template.render(row(QUESTION), chat_tokenizer)


PARTS = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}go"


@pytest.mark.parametrize("drops", [PARTS, "{{ messages[0].text }}<user>", "{{ messages[0].content }}</s>"])
def test_a_chat_template_that_drops_the_question_is_refused(chat_tokenizer, drops):
    with pytest.raises(InputError, match=r"f.jsonl:4: .*drops.*question.*list of parts.*`template`"):
        ChatTemplate(template=drops).render(row(LONGER), chat_tokenizer)


@pytest.mark.parametrize("change", ["trim", "replace('\\n', ' ')", "indent(4)"])
def test_a_chat_template_may_change_white_space(chat_tokenizer, change):
    template = ChatTemplate(template="{{ messages[0].content | " + change + " }} go")
    assert template.render(row([{"role": "user", "content": " a\n\nb </s>c\n"}]), chat_tokenizer).endswith("go")


@pytest.mark.parametrize(
    "template",
    [
        PlainTemplate("q: {question} 🙂\nsay {marker}:", system_prompt='"é" {marker}', examples=EXAMPLES),
        ChatTemplate(system_prompt="🙂 {marker}", instruction="end with {marker}\n", examples=EXAMPLES),
        ChatTemplate(kwargs={"hint": None, "flag": True, "deep": {"a": [1, "x"]}}, instruction="go"),
    ],
)
@pytest.mark.parametrize("markup", [TEXT, TOKEN])
def test_the_jinja_of_a_template_renders_what_the_template_does(chat_tokenizer, template, markup):
    template = template.with_markup(markup)
    jinja = template.jinja(chat_tokenizer)
    for messages in (QUESTION, [SYSTEM, *QUESTION], [{**SYSTEM, "content": ""}, *QUESTION]):
        shown = chat_tokenizer.apply_chat_template(
            messages, chat_template=jinja, tokenize=False, add_generation_prompt=True
        )
        own = template.render(row(messages), chat_tokenizer)
        assert shown.removeprefix("<s>") == own.removeprefix("<s>")
