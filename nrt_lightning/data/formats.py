"""Formats of data files: which columns of a record hold the question and the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from nrt_lightning.data.values import answer_text, check_once, kind, number_text, row_id, shown, text_value, value_of
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row

ROLES = ("system", "user", "assistant", "tool")


class RowFormat(ABC):
    """Base class of formats; a subclass implements `parse`."""

    @abstractmethod
    def parse(self, record: Mapping[str, Any], origin: str, index: int, *, require_answer: bool = True) -> Row:
        """Convert a record to a row.

        Args:
            record: values by column name.
            origin: file and line of the record, for errors; stored in the row.
            index: index of the record in its source, from 0; the row's id if the record has none.
            require_answer: False for prediction: the record may lack a usable answer.

        Raises:
            InputError: a column is missing or its value cannot be used.
        """


@dataclass
class QuestionAnswer(RowFormat):
    """One column with the question and one with the answer. Answers that are numbers become their text.

    Args:
        question: column of the question.
        answer: column of the answer.
        id: column of the row's id; without such a column the id is the index of the row.

    Example:
        >>> row = QuestionAnswer(question="q", answer="a").parse({"q": "1 + 1?", "a": "2"}, "sums.csv:2", index=0)
        >>> row.question, row.answer, row.id
        ('1 + 1?', '2', '0')
    """

    question: str = "question"
    answer: str = "answer"
    id: str = "id"

    @override
    def parse(self, record: Mapping[str, Any], origin: str, index: int, *, require_answer: bool = True) -> Row:
        question = text_value(value_of(record, self.question, "question", origin), self.question, origin)
        answer: str | None
        if require_answer:
            answer = answer_text(value_of(record, self.answer, "answer", origin), self.answer, origin)
        else:
            answer = _usable(record.get(self.answer))
        return Row(row_id(record, self.id, index, origin), [{"role": "user", "content": question}], answer, origin)


@dataclass
class Messages(RowFormat):
    """One column with a conversation. Its last turn, by the assistant, is the answer; the turns before are the prompt.

    Args:
        column: column of the conversation, a list of `{"role": ..., "content": ...}`.
        id: column of the row's id; without such a column the id is the index of the row.

    Example:
        >>> turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
        >>> Messages().parse({"messages": turns}, "tulu.jsonl:1", index=0).answer
        '2'
    """

    column: str = "messages"
    id: str = "id"

    @override
    def parse(self, record: Mapping[str, Any], origin: str, index: int, *, require_answer: bool = True) -> Row:
        value = value_of(record, self.column, "column", origin)
        turns = _turns(value if require_answer else _unanswered(value), self.column, origin)
        messages, answer = _split_answer(turns, self.column, origin, require_answer=require_answer)
        return Row(row_id(record, self.id, index, origin), messages, answer, origin)


@dataclass
class PromptCompletion(RowFormat):
    """One column with the prompt and one with the completion, both texts or both lists of turns.

    Args:
        prompt: column of the prompt.
        completion: column of the completion; in a list of turns, the last one is the answer.
        id: column of the row's id; without such a column the id is the index of the row.

    Example:
        >>> record = {"prompt": "1 + 1?", "completion": "2"}
        >>> PromptCompletion().parse(record, "sums.jsonl:1", index=0).messages
        [{'role': 'user', 'content': '1 + 1?'}]
    """

    prompt: str = "prompt"
    completion: str = "completion"
    id: str = "id"

    @override
    def parse(self, record: Mapping[str, Any], origin: str, index: int, *, require_answer: bool = True) -> Row:
        prompt = value_of(record, self.prompt, "prompt", origin)
        completion = record.get(self.completion)
        check_once(record, self.completion, origin)
        if not require_answer:
            completion = _usable(completion, turns=isinstance(prompt, list))
        if require_answer or completion is not None:
            completion = value_of(record, self.completion, "completion", origin)
            self._check_samekind(prompt, completion, origin)
        answer: str | None
        if isinstance(prompt, list):
            turns = _turns(prompt if require_answer else _unanswered(prompt), self.prompt, origin)
            if completion is not None:
                turns += _turns(completion, self.completion, origin)
            column = self.prompt if completion is None else self.completion
            messages, answer = _split_answer(turns, column, origin, require_answer=completion is not None)
        else:
            messages = [{"role": "user", "content": text_value(prompt, self.prompt, origin)}]
            answer = None if completion is None else answer_text(completion, self.completion, origin)
        return Row(row_id(record, self.id, index, origin), messages, answer, origin)

    def _check_samekind(self, prompt: Any, completion: Any, origin: str) -> None:
        if isinstance(prompt, list) != isinstance(completion, list):
            raise InputError(
                f"{origin}: column '{self.prompt}' is {kind(prompt)} and column '{self.completion}' is "
                f"{kind(completion)}. Write both as text or both as lists of turns."
            )


def _turns(value: Any, column: str, origin: str) -> list[dict[str, str]]:
    """A checked conversation, reduced to roles and contents."""
    fix = 'Write it as [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].'
    if not isinstance(value, list):
        raise InputError(f"{origin}, column '{column}': expected a list of turns, got {kind(value)}. {fix}")
    if not value:
        raise InputError(f"{origin}, column '{column}': the value is empty. Fill it in or remove the row.")
    turns = []
    for number, turn in enumerate(value, start=1):
        position = f"{origin}, column '{column}' turn {number}"
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise InputError(f"{position}: no role and content ({shown(turn)}). {fix}")
        if turn["role"] not in ROLES:
            raise InputError(f"{position}: unknown role {shown(turn['role'])}.{nearest(shown(turn['role']), ROLES)}")
        for name in ("role", "content"):
            check_once(turn, name, position)
        checked = answer_text if turn["role"] == "assistant" else text_value
        content = checked(turn["content"], f"{column}[{number - 1}].content", origin)
        turns.append({"role": turn["role"], "content": content})
    return turns


def _usable(value: Any, *, turns: bool = False) -> Any:
    """An answer that is not required: the value, or None if it cannot be an answer."""
    if turns:
        return value if isinstance(value, list) and value and _unanswered(value) is value else None
    found = number_text(value)
    return found if isinstance(found, str) and found.strip() else None


def _unanswered(value: Any) -> Any:
    """A conversation in which an answer is not required, without a last turn of the assistant that is not an answer."""
    last = value[-1] if isinstance(value, list) and value else None
    if isinstance(last, Mapping) and last.get("role") == "assistant" and _usable(last.get("content")) is None:
        return value[:-1]
    return value


def _split_answer(
    turns: list[dict[str, str]], column: str, origin: str, *, require_answer: bool
) -> tuple[list[dict[str, str]], str | None]:
    """The conversation without the last turn, if it is the assistant's, and the text of that turn."""
    answer = None
    if turns[-1]["role"] == "assistant":
        answer, turns = turns[-1]["content"], turns[:-1]
    elif require_answer:
        raise InputError(
            f"{origin}, column '{column}': the last turn is of role {turns[-1]['role']!r}, but the answer must be "
            "the last turn, of role 'assistant'. Add it or remove the row."
        )
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        found = f"a turn of role {turns[-1]['role']!r}" if turns else "nothing"
        raise InputError(
            f"{origin}, column '{column}': expected a question before the answer, got {found}. "
            "Add a turn of role 'user' or remove the row."
        )
    return turns, answer
