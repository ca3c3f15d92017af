import pytest

from nrt_lightning.data import Messages, PromptCompletion, QuestionAnswer
from nrt_lightning.errors import InputError


def turn(role, content):
    return {"role": role, "content": content}


CONVERSATION = [turn("system", "Sum."), turn("user", "1+1?"), turn("assistant", "2"), turn("user", "2+1?")]


def test_question_answer_by_name():
    record = {"q": "1+1?", "a": "2", "key": 7, "other": [1]}
    row = QuestionAnswer("q", "a", id="key").parse(record, "f.csv:2", index=0)
    assert (row.id, row.messages, row.answer, row.origin) == ("7", [turn("user", "1+1?")], "2", "f.csv:2")


def test_row_id_falls_back_to_the_index():
    assert QuestionAnswer().parse({"question": "q", "answer": "a", "id": None}, "f:1", index=5).id == "5"
    assert QuestionAnswer().parse({"question": "q", "answer": "a", "id": 0}, "f:1", index=5).id == "0"


def test_messages_last_assistant_turn_is_the_answer():
    row = Messages("chat").parse({"chat": [*CONVERSATION, turn("assistant", "3")]}, "f:1", index=0)
    assert row.messages == CONVERSATION
    assert row.answer == "3"
    assert row.question == "2+1?"


def test_messages_drop_everything_but_role_and_content():
    turns = [{**turn("user", "q"), "name": None}, {**turn("assistant", "a"), "weight": 1}]
    assert Messages().parse({"messages": turns}, "f:1", index=0).messages == [turn("user", "q")]


def test_prompt_completion_as_texts_and_as_turns():
    text = PromptCompletion("p", "c").parse({"p": "1+1?", "c": "2"}, "f:1", index=0)
    turns = PromptCompletion("p", "c").parse({"p": [turn("user", "1+1?")], "c": [turn("assistant", "2")]}, "f:1", 0)
    assert (text.messages, text.answer) == (turns.messages, turns.answer) == ([turn("user", "1+1?")], "2")


@pytest.mark.parametrize(
    ("format", "record", "question"),
    [
        (QuestionAnswer(), {"question": "q"}, "q"),
        (QuestionAnswer(), {"question": "q", "answer": None}, "q"),
        (Messages(), {"messages": CONVERSATION}, "2+1?"),
        (PromptCompletion(), {"prompt": "q"}, "q"),
        (PromptCompletion(), {"prompt": CONVERSATION}, "2+1?"),
    ],
)
def test_prediction_needs_no_answer_but_training_does(format, record, question):
    row = format.parse(record, "f:3", index=0, require_answer=False)
    assert row.answer is None
    assert row.question == question
    with pytest.raises(InputError, match="f:3"):
        format.parse(record, "f:3", index=0)


def test_an_answer_that_is_there_is_kept_for_prediction():
    assert QuestionAnswer().parse({"question": "q", "answer": "a"}, "f:1", 0, require_answer=False).answer == "a"
    turns = [turn("user", "q"), turn("assistant", "a")]
    assert Messages().parse({"messages": turns}, "f:1", 0, require_answer=False).answer == "a"


@pytest.mark.parametrize("answer", ["", None, True, ["a"], {}])
def test_an_answer_that_cannot_be_used_does_not_matter_for_prediction(answer):
    turns = [turn("user", "q"), {"role": "assistant", "content": answer}]
    for format_, record in (
        (QuestionAnswer(), {"question": "q", "answer": answer}),
        (Messages(), {"messages": turns}),
        (PromptCompletion(), {"prompt": "q", "completion": answer}),
        (PromptCompletion(), {"prompt": turns[:1], "completion": turns[1:]}),
    ):
        row = format_.parse(record, "f:1", 0, require_answer=False)
        assert (row.question, row.answer) == ("q", None)


@pytest.mark.parametrize(
    ("format", "record", "words"),
    [
        (QuestionAnswer(), {"qestion": "q", "answer": "a"}, ["no column 'question'", "'qestion'", "`question`"]),
        (QuestionAnswer(), {"question": "q", "anwser": "a"}, ["no column 'answer'", "'anwser'", "`answer`"]),
        (QuestionAnswer(), {"question": " \n", "answer": "a"}, ["'question'", "empty"]),
        (QuestionAnswer(), {"question": "q", "answer": ""}, ["'answer'", "empty"]),
        (QuestionAnswer(), {"question": "q", "answer": True}, ["'answer'", "bool (True)"]),
        (QuestionAnswer(), {"question": "q", "answer": float("nan")}, ["'answer'", "float (nan)"]),
        (QuestionAnswer(), {"question": ["q"], "answer": "a"}, ["'question'", "a list"]),
        (QuestionAnswer(), {"question": "q", "answer": None}, ["'answer'", "nothing"]),
        (Messages(), {"mesages": []}, ["no column 'messages'", "'mesages'", "`column`"]),
        (Messages(), {"messages": "hello"}, ["'messages'", "list of turns", "str", '{"role": "user"']),
        (Messages(), {"messages": []}, ["'messages'", "empty"]),
        (Messages(), {"messages": [{"role": "user"}]}, ["turn 1", "role", "content"]),
        (Messages(), {"messages": [turn("asistant", "x")]}, ["turn 1", "'asistant'", "'assistant'"]),
        (Messages(), {"messages": [turn("user", "")]}, ["messages[0].content", "empty"]),
        (Messages(), {"messages": [turn("user", "q"), turn("assistant", None)]}, ["messages[1].content", "nothing"]),
        (Messages(), {"messages": CONVERSATION}, ["'messages'", "'user'", "'assistant'"]),
        (Messages(), {"messages": [turn("assistant", "a")]}, ["'messages'", "nothing", "'user'"]),
        (
            Messages(),
            {"messages": [turn("user", "q"), turn("assistant", "a"), turn("assistant", "b")]},
            ["'messages'", "'assistant'", "'user'"],
        ),
        (PromptCompletion(), {"prompt": "q", "completions": "a"}, ["no column 'completion'", "'completions'"]),
        (
            PromptCompletion(),
            {"prompt": "q", "completion": [turn("assistant", "a")]},
            ["'prompt'", "str", "'completion'", "a list"],
        ),
        (PromptCompletion(), {"prompt": "q", "completion": " "}, ["'completion'", "empty"]),
        (PromptCompletion(), {"prompt": 3, "completion": "a"}, ["'prompt'", "int (3)"]),
        (
            PromptCompletion(),
            {"prompt": [turn("user", "q")], "completion": [turn("user", "a")]},
            ["'completion'", "'user'"],
        ),
    ],
)
def test_bad_records_name_origin_column_and_fix(format, record, words):
    with pytest.raises(InputError) as error:
        format.parse(record, "train.jsonl:12", index=11)
    message = str(error.value)
    assert message.startswith("train.jsonl:12")
    for word in words:
        assert word in message


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (-0.5, "-0.5"), (3.0, "3.0"), (10**30, "1" + "0" * 30)])
def test_answers_that_are_numbers_become_their_text(value, text):
    assert QuestionAnswer().parse({"question": "q", "answer": value}, "f:1", 0).answer == text
    assert PromptCompletion().parse({"prompt": "q", "completion": value}, "f:1", 0).answer == text
    turns = [turn("user", "q"), turn("assistant", value)]
    assert Messages().parse({"messages": turns}, "f:1", 0).answer == text


@pytest.mark.parametrize("value", ["", None, True, [1]])
def test_an_answer_that_is_not_needed_is_not_refused(value):
    assert QuestionAnswer().parse({"question": "q", "answer": value}, "f:1", 0, require_answer=False).answer is None
