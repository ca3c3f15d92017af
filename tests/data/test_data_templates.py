import pytest

from nrt_lightning.data import ChatTemplate, PlainTemplate, PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

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
