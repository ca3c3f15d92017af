"""The columns of question and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nrt_lightning.data import Messages, PromptCompletion, QuestionAnswer
from nrt_lightning.data.formats import RowFormat
from nrt_lightning.errors import InputError, nearest

QUESTION = ("question", "questions", "query", "problem", "prompt", "instruction", "input", "task", "q", "frage")
ANSWER = (
    "answer", "answers", "final_answer", "solution", "response", "output", "completion", "target", "label", "result",
    "a", "antwort",
)  # fmt: skip
CONVERSATION = ("messages", "conversations", "conversation")


def find_format(record: Mapping[str, Any], question: str | None, answer: str | None, origin: str) -> RowFormat:
    """The columns of a file, by their names.

    Args:
        record: the first record.
        question: name of the column of the question; None to find it.
        answer: name of the column of the answer; None to find it.
        origin: file and line of the record, for errors.

    Raises:
        InputError: a named column is missing, no column has a name that says what it contains, or two together are the
            question.

    Example:
        >>> find_format({"id": 1, "Problem": "1 + 1?", "Answer": "2"}, None, None, "sums.csv:2")
        QuestionAnswer(question='Problem', answer='Answer', id='id')
    """
    columns = [str(column) for column in record]
    for option, name in (("question", question), ("answer", answer)):
        if name is not None and name not in columns:
            raise InputError(f"--{option}={name!r}: {origin} has no such column.{nearest(name, columns)}")
    if question is None and answer is None:
        for name in CONVERSATION:
            if is_turns(record.get(name)):
                return Messages(column=name)
        if is_turns(record.get("prompt")) and is_turns(record.get("completion")):
            return PromptCompletion()
    if question is None:
        check_instruction(columns, origin)
    question = question or named(columns, QUESTION, {answer})
    answer = answer or named(columns, ANSWER, {question})
    rest = [column for column in columns if column not in (question, answer) and column.lower() not in ("id", "")]
    if question is None and answer is not None and len(rest) == 1:
        question = rest[0]
    if answer is None and question is not None and len(rest) == 1:
        answer = rest[0]
    if question is None or answer is None:
        missing = [f"--{o}=COLUMN" for o, name in (("question", question), ("answer", answer)) if name is None]
        raise InputError(
            f"{origin}: the columns {', '.join(map(repr, columns))} do not tell which is which. "
            f"Give {' and '.join(missing)}."
        )
    if question == answer:
        raise InputError(f"--question and --answer are both {question!r}. Name two columns.")
    return QuestionAnswer(question=question, answer=answer)


def check_instruction(columns: Sequence[str], origin: str) -> None:
    """Refuse to choose between an instruction and its input, as in Alpaca's rows: neither is the whole question."""
    instruction, text = (named(columns, (name,), set()) for name in ("instruction", "input"))
    if instruction is not None and text is not None:
        raise InputError(
            f"{origin}: the columns {instruction!r} and {text!r} may be one question in two parts. Give "
            "--question=COLUMN: one of them, or a new column with both texts."
        )


def named(columns: Sequence[str], names: Sequence[str], taken: set[str | None]) -> str | None:
    """The first of these columns with one of the names, upper or lower case; None if there is none."""
    lower = {column.strip().lower(): column for column in reversed(columns) if column not in taken}
    return next((lower[name] for name in names if name in lower), None)


def is_turns(value: Any) -> bool:
    """True for a list of `{"role": ..., "content": ...}`."""
    return isinstance(value, list) and bool(value) and all(isinstance(t, Mapping) and "role" in t for t in value)
