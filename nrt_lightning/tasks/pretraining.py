"""What the pretraining texts of all tiny bases share: a mixture of kinds of documents, and the kinds without a task.

Native Reasoning Training starts from a model that *can* reason now and then, not from one that does. So a text lets a
model meet all the pieces apart: questions that somebody works out, guesses at or only chats about; logs from which
values are then read off, behind separators of their own. What it never meets is the whole: a question, its trace, the
marker and the answer.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from nrt_lightning.data.sources import QASource
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

KINDS = ("question", "log", "note", "lesson", "sequence", "chatter")

OPENINGS = ("hm", "well", "oh", "ok", "so", "right", "let me see", "wait", "nice")
SUBJECTS = ("i", "you", "we", "they", "my friend", "the teacher", "nobody", "everyone")
VERBS = ("liked", "knew", "saw", "wanted", "lost", "made", "found", "wrote")
OBJECTS = ("it", "this one", "the long way", "a number", "the list", "two of them", "the answer", "a red box")
ENDINGS = ("today", "again", "too", "for now", "at home", "i think", "of course", "maybe later")


@dataclass
class Mixture:
    """How often each kind of document appears; weights count relative to one another.

    Args:
        question: a question as the task asks it, followed by one of the three continuations below.
        log: a problem and its log behind another separator.
        note: values out of the blue, and some of them read off: reading alone, with nothing to compute.
        lesson: single steps without a problem, such as sums and products modulo 5.
        sequence: runs of letters or digits.
        chatter: short sentences.
        worked: of the questions, those worked out step by step.
        guessed: of the questions, those answered at once, with values drawn at random.
        chatted: of the questions, those followed by chatter.
        read_off: share of the logs after which the values asked are read off.
        slip: share of the worked questions and logs with one wrong value, from which the rest follows.
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
    read_off: float = 0.8
    slip: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise InputError(f"Mixture({name}={value!r}): a weight or share cannot be negative; choose 0 or more.")
        for name in ("read_off", "slip"):
            if getattr(self, name) > 1:
                raise InputError(f"Mixture({name}={getattr(self, name)!r}): a share is at most 1.")
        for names in (KINDS, ("worked", "guessed", "chatted")):
            if not any(getattr(self, name) for name in names):
                raise InputError(f"Mixture: {', '.join(names)} are all 0; give one of them a weight above 0.")


@dataclass
class PretrainingText(QASource, ABC):
    """Pretraining documents as rows, so that the SFT module of this package is a language-model pretrainer.

    A row's question is a document's first token and its answer the rest: cross-entropy on the answer and its end
    token is then the language-model loss of the document. A subclass knows a task: it implements `question`, `log` and
    `note`.

    Args:
        size: number of documents.
        seed: of the draw; a larger `size` only appends to a smaller one.
        mixture: what the documents are.
    """

    size: int = 36_000
    seed: int = 0
    mixture: Mixture = field(default_factory=Mixture)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"{type(self).__name__}(size={self.size!r}): choose at least 1 document.")

    def rows(self) -> list[Row]:
        """The documents, cut after their first token."""
        rng = random.Random(f"corpus {self.seed}")
        rows = []
        for index in range(self.size):
            text, name = self.document(rng), f"corpus-{self.seed}-{index}"
            first, rest = self.cut(text)
            message = {"role": "user", "content": first}
            rows.append(Row(name, [message], answer=rest, origin=f"{type(self).__name__}: {name}"))
        return rows

    def document(self, rng: random.Random) -> str:
        """Draw one document."""
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
        """A document's first token, and the rest."""
        return text[:1], text[1:]

    @abstractmethod
    def question(self, rng: random.Random) -> str:
        """A question as the task asks it, and what somebody says to it."""

    @abstractmethod
    def log(self, rng: random.Random) -> str:
        """A problem that is worked out, and perhaps what is then read off."""

    @abstractmethod
    def note(self, rng: random.Random) -> str:
        """Values out of the blue, and some of them read off."""

    def lesson(self, rng: random.Random) -> str:
        """Single steps without a problem."""
        return equations(rng)


def choose(rng: random.Random, options: tuple[tuple[float, Callable[[], str]], ...]) -> str:
    """What one of the makers makes, drawn by their weights."""
    weights, makers = zip(*options, strict=True)
    return rng.choices(makers, weights)[0]()


def apply(value: int, operation: str, modulus: int) -> int:
    """An operation such as `*2` on a value.

    >>> apply(4, "*2", 5)
    3
    """
    digit = int(operation[1])
    return (value + digit if operation[0] == "+" else value * digit) % modulus


def equations(rng: random.Random, modulus: int = 5) -> str:
    """Sums and products, right."""
    drawn = []
    for _ in range(rng.randint(1, 5)):
        left, operation = rng.randrange(modulus), rng.choice("+*") + str(rng.randint(1, 4))
        drawn.append(f"{left}{operation}={apply(left, operation, modulus)}")
    return rng.choice((" ", ";", ", ")).join(drawn)


def sequence(rng: random.Random) -> str:
    """A run of letters or digits, forwards or backwards."""
    symbols = rng.choice(("abcdefghijklmnopqrstuvwxyz", "01234" * 5))
    start = rng.randrange(len(symbols) - 4)
    run = symbols[start : start + rng.randint(4, 12)]
    return run[::-1] if rng.random() < 0.3 else run


def chatter(rng: random.Random) -> str:
    """A short sentence about nothing."""
    sentence = f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}"
    if rng.random() < 0.5:
        sentence = f"{rng.choice(OPENINGS)}, {sentence}"
    if rng.random() < 0.5:
        sentence = f"{sentence} {rng.choice(ENDINGS)}"
    return sentence + rng.choice((".", "!", "...", ""))
