"""How a record of a data file becomes a row: which columns hold the question and the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row

ROLES = ("system", "user", "assistant", "tool")


class RowFormat(ABC):
    """Reads one record; a subclass implements `parse`."""

    @abstractmethod
    def parse(self, record: Mapping[str, Any], origin: str, index: int, require_answer: bool = True) -> Row:
        """The row that a record holds.

        Args:
            record: column names and values.
            origin: where the record was read, named in errors and kept in the row.
            index: place of the record in its source, the row's id where it has none.
            require_answer: False for prediction: a record without an answer is taken.

        Raises:
            InputError: a column is missing or its value cannot be used.
        """


@dataclass
class QuestionAnswer(RowFormat):
    """A column with the question and a column with the answer.

    Args:
        question: column of the question.
        answer: column of the answer.
        id: column of the row's id; the row's place in the source where there is no such column.

    Example:
        >>> row = QuestionAnswer(question="q", answer="a").parse({"q": "1 + 1?", "a": "2"}, "sums.csv:2", index=0)
        >>> row.question, row.answer, row.id
        ('1 + 1?', '2', '0')
    """

    question: str = "question"
    answer: str = "answer"
    id: str = "id"

    def parse(self, record: Mapping[str, Any], origin: str, index: int, require_answer: bool = True) -> Row:
        """The row that a record holds."""
        question = _text(_column(record, self.question, "question", origin), self.question, origin)
        answer = None
        if require_answer or record.get(self.answer) is not None:
            answer = _text(_column(record, self.answer, "answer", origin), self.answer, origin)
        return Row(_row_id(record, self.id, index), [{"role": "user", "content": question}], answer, origin)


@dataclass
class Messages(RowFormat):
    """A column with a conversation: its last turn, the assistant's, is the answer, the turns before it the prompt.

    Args:
        column: column of the conversation, a list of `{"role": ..., "content": ...}`.
        id: column of the row's id; the row's place in the source where there is no such column.

    Example:
        >>> turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
        >>> Messages().parse({"messages": turns}, "tulu.jsonl:1", index=0).answer
        '2'
    """

    column: str = "messages"
    id: str = "id"

    def parse(self, record: Mapping[str, Any], origin: str, index: int, require_answer: bool = True) -> Row:
        """The row that a record holds."""
        turns = _turns(_column(record, self.column, "column", origin), self.column, origin)
        messages, answer = _split_answer(turns, self.column, origin, require_answer)
        return Row(_row_id(record, self.id, index), messages, answer, origin)


@dataclass
class PromptCompletion(RowFormat):
    """A column with the prompt and a column with the completion, both texts or both lists of turns.

    Args:
        prompt: column of the prompt.
        completion: column of the completion; as a list of turns its last one is the answer.
        id: column of the row's id; the row's place in the source where there is no such column.

    Example:
        >>> record = {"prompt": "1 + 1?", "completion": "2"}
        >>> PromptCompletion().parse(record, "sums.jsonl:1", index=0).messages
        [{'role': 'user', 'content': '1 + 1?'}]
    """

    prompt: str = "prompt"
    completion: str = "completion"
    id: str = "id"

    def parse(self, record: Mapping[str, Any], origin: str, index: int, require_answer: bool = True) -> Row:
        """The row that a record holds."""
        prompt = _column(record, self.prompt, "prompt", origin)
        completion = record.get(self.completion)
        if require_answer or completion is not None:
            completion = _column(record, self.completion, "completion", origin)
            self._check_same_kind(prompt, completion, origin)
        answer: str | None
        if isinstance(prompt, list):
            turns = _turns(prompt, self.prompt, origin)
            if completion is not None:
                turns += _turns(completion, self.completion, origin)
            column = self.prompt if completion is None else self.completion
            messages, answer = _split_answer(turns, column, origin, require_answer=completion is not None)
        else:
            messages = [{"role": "user", "content": _text(prompt, self.prompt, origin)}]
            answer = None if completion is None else _text(completion, self.completion, origin)
        return Row(_row_id(record, self.id, index), messages, answer, origin)

    def _check_same_kind(self, prompt: Any, completion: Any, origin: str) -> None:
        if isinstance(prompt, list) != isinstance(completion, list):
            raise InputError(
                f"{origin}: column '{self.prompt}' is {_kind(prompt)} and column '{self.completion}' is "
                f"{_kind(completion)}. Write both as text or both as lists of turns."
            )


def _column(record: Mapping[str, Any], name: str, setting: str, origin: str) -> Any:
    """The value of a column that must be there; `setting` is the format's field that names it."""
    if name not in record:
        raise InputError(
            f"{origin}: no column '{name}'.{nearest(name, map(str, record))} "
            f"Name the column by the format's `{setting}`, or rename it in the file."
        )
    return record[name]


def _text(value: Any, column: str, origin: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{origin}, column '{column}': expected text, got {_kind(value)} ({_shown(value)}). "
            "Write the value as a string."
        )
    if not value.strip():
        raise InputError(f"{origin}, column '{column}': is empty. Fill it in or remove the row.")
    return value


def _turns(value: Any, column: str, origin: str) -> list[dict[str, str]]:
    """A checked conversation with nothing but roles and contents."""
    mend = 'Write it as [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].'
    if not isinstance(value, list):
        raise InputError(f"{origin}, column '{column}': expected a list of turns, got {_kind(value)}. {mend}")
    if not value:
        raise InputError(f"{origin}, column '{column}': is empty. Fill it in or remove the row.")
    turns = []
    for number, turn in enumerate(value, start=1):
        place = f"{column}' turn {number}"
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise InputError(f"{origin}, column '{place}: has no role and content ({_shown(turn)}). {mend}")
        if turn["role"] not in ROLES:
            raise InputError(
                f"{origin}, column '{place}: unknown role {turn['role']!r}.{nearest(str(turn['role']), ROLES)}"
            )
        turns.append(
            {"role": turn["role"], "content": _text(turn["content"], f"{column}[{number - 1}].content", origin)}
        )
    return turns


def _split_answer(
    turns: list[dict[str, str]], column: str, origin: str, require_answer: bool
) -> tuple[list[dict[str, str]], str | None]:
    """The conversation without its last assistant turn, and that turn's text."""
    answer = None
    if turns[-1]["role"] == "assistant":
        answer, turns = turns[-1]["content"], turns[:-1]
    elif require_answer:
        raise InputError(
            f"{origin}, column '{column}': the last turn is the {turns[-1]['role']}'s, but the answer is the "
            "assistant's last turn. End the conversation with it or remove the row."
        )
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        before = f"the {turns[-1]['role']}'s turn" if turns else "nothing"
        raise InputError(
            f"{origin}, column '{column}': {before} stands where the question is expected. "
            "Put a user turn there or remove the row."
        )
    return turns, answer


def _row_id(record: Mapping[str, Any], column: str, index: int) -> str:
    value = record.get(column)
    return str(index) if value is None else str(value)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else type(value).__name__


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
