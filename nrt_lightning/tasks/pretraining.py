"""Base class of the pretraining texts of the tiny bases: a mixture of documents, and the documents without a task.

Native Reasoning Training starts from a model that sometimes *can* reason, not from one that does. The text therefore
contains all pieces separately: questions that are worked out, guessed or only chatted about, and logs whose values are
read off after various separators. It never contains the whole: a question, its trace, the marker and the answer.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.data.sources import QASource
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.structures import Row

KINDS = ("question", "log", "note", "lesson", "sequence", "chatter")

OPENINGS = ("hm", "well", "oh", "ok", "so", "right", "let me see", "wait", "nice")
SUBJECTS = ("i", "you", "we", "they", "my friend", "the teacher", "nobody", "everyone")
VERBS = ("liked", "knew", "saw", "wanted", "lost", "made", "found", "wrote")
OBJECTS = ("it", "this one", "the long way", "a number", "the list", "two of them", "the answer", "a red box")
ENDINGS = ("today", "again", "too", "for now", "at home", "i think", "of course", "maybe later")


@dataclass
class Mixture:
    """Relative weights of the kinds of documents.

    Args:
        question: weight of questions in the task's format, followed by one of the three continuations below.
        log: weight of problems with their log after another separator.
        note: weight of random values, some of which are read off; there is nothing to compute.
        lesson: weight of single steps without a problem, such as sums and products modulo 5.
        sequence: weight of runs of letters or digits.
        chatter: weight of short sentences.
        worked: weight, among questions, of those worked out step by step.
        guessed: weight, among questions, of those answered directly with random values.
        chatted: weight, among questions, of those followed by chatter.
        explained: weight, among questions, of those that follow their answer, and are worked out; of tasks that have
            this form.
        read_off: fraction of the logs after which the requested values are read off.
        slip: fraction of the worked questions and logs with one wrong value, from which the next values are computed.
    """

    question: float = 0.32
    log: float = 0.46
    note: float = 0.12
    lesson: float = 0.05
    sequence: float = 0.02
    chatter: float = 0.03
    worked: float = 0.16
    guessed: float = 0.48
    chatted: float = 0.36
    explained: float = 0.0
    read_off: float = 0.8
    slip: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most = 1 if name in ("read_off", "slip") else float("inf")
            if not 0 <= value <= most:
                raise InputError(f"Mixture({name}={value!r}): out of range. Give a number from 0 to {most}.")
        for names in (KINDS, ("worked", "guessed", "chatted")):
            if not any(getattr(self, name) for name in names):
                raise InputError(f"Mixture: {', '.join(names)} are all 0. Give one of them a weight above 0.")


@dataclass
class PretrainingText(QASource, ABC):
    """Pretraining documents as rows, so that `SFTModule` pretrains a language model.

    The question of a row is the first token of a document and its answer the rest. Cross-entropy on the answer and its
    end token is then the language-model loss of the document. A subclass for a task implements `question`, `log` and
    `note`.

    Args:
        size: number of documents; a larger size only appends documents.
        seed: seed of the sampling.
        mixture: weights of the kinds of documents.
    """

    explains = False  # True: it has questions that follow their answer (`Mixture.explained`)
    size: int = 36_000
    seed: int = 0
    mixture: Mixture = field(default_factory=Mixture)

    def __post_init__(self) -> None:
        check_at_least(f"{type(self).__name__}.size", self.size, 1)
        if self.mixture.explained and not self.explains:
            raise InputError(
                f"{type(self).__name__}.mixture.explained is {self.mixture.explained}, but it has no such documents. "
                "Set it to 0, or use RegisterCorpus."
            )

    @override
    def rows(self) -> list[Row]:
        rng = random.Random(f"corpus {self.seed}")
        rows = []
        for index in range(self.size):
            text, name = self.document(rng), f"corpus-{self.seed}-{index}"
            first, rest = self.cut(text)
            message = {"role": "user", "content": first}
            rows.append(Row(name, [message], answer=rest, origin=f"{type(self).__name__}: {name}"))
        return rows

    def document(self, rng: random.Random) -> str:
        """Sample a document."""
        mixture = self.mixture
        return choose(
            rng,
            (
                (mixture.question, lambda: self.question(rng)),
                (mixture.log, lambda: self.log(rng)),
                (mixture.note, lambda: self.note(rng)),
                (mixture.lesson, lambda: self.lesson(rng)),
                (mixture.sequence, lambda: sequence(rng)),
                (mixture.chatter, lambda: chatter(rng)),
            ),
        )

    def cut(self, text: str) -> tuple[str, str]:
        """Split a document after its first token."""
        return text[:1], text[1:]

    @abstractmethod
    def question(self, rng: random.Random) -> str:
        """Sample a question in the task's format with a continuation."""

    @abstractmethod
    def log(self, rng: random.Random) -> str:
        """Sample a problem with its log, and possibly values read off it."""

    @abstractmethod
    def note(self, rng: random.Random) -> str:
        """Sample random values, some of which are read off."""

    def lesson(self, rng: random.Random) -> str:
        """Sample single steps without a problem."""
        return equations(rng)


def choose(rng: random.Random, options: tuple[tuple[float, Callable[[], str]], ...]) -> str:
    """Sample one of the functions by its weight, and call it."""
    weights, functions = zip(*options, strict=True)
    return rng.choices(functions, weights)[0]()


def apply(value: int, operation: str, modulus: int) -> int:
    """Apply an operation such as `*2` to a value.

    >>> apply(4, "*2", 5)
    3
    """
    digit = int(operation[1])
    return (value + digit if operation[0] == "+" else value * digit) % modulus


def equations(rng: random.Random, modulus: int = 5) -> str:
    """Sample correct sums and products."""
    written = []
    for _ in range(rng.randint(1, 5)):
        left, operation = rng.randrange(modulus), rng.choice("+*") + str(rng.randint(1, 4))
        written.append(f"{left}{operation}={apply(left, operation, modulus)}")
    return rng.choice((" ", ";", ", ")).join(written)


def sequence(rng: random.Random) -> str:
    """Sample a run of letters or digits, forwards or backwards."""
    symbols = rng.choice(("abcdefghijklmnopqrstuvwxyz", "01234" * 5))
    start = rng.randrange(len(symbols) - 4)
    run = symbols[start : start + rng.randint(4, 12)]
    return run[::-1] if rng.random() < 0.3 else run


def chatter(rng: random.Random) -> str:
    """Sample a short sentence."""
    sentence = f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}"
    if rng.random() < 0.5:
        sentence = f"{rng.choice(OPENINGS)}, {sentence}"
    if rng.random() < 0.5:
        sentence = f"{sentence} {rng.choice(ENDINGS)}"
    return sentence + rng.choice((".", "!", "...", ""))
