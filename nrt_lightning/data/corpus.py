"""The tiny base model's pretraining text: programs, logs and talk, and never a marker.

Native Reasoning Training starts from a model that *can* reason now and then, not from one that does. So this text
lets a model meet all the pieces apart: questions that somebody works out, guesses at or only chats about; logs of
programs from which registers are then read off, behind separators of their own; arithmetic modulo 5. What it never
meets is the whole: a question, its trace, the marker and the answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from nrt_lightning.data.registers import MODULUS, NAMES, choose_asked, make_program, run_program
from nrt_lightning.data.sources import QASource
from nrt_lightning.data.tiny_tokenizer import EOS
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

LOG_OPENERS = ("!{asked} ", "#{asked}:", "@{asked}>", "?{asked} ")
"""How a log names the registers asked. Questions write `?dc:`, which no log does, but both signs occur apart."""

READ_OFF = ("|", "/", "=>", "~", "\n", " - ", EOS)
"""Before the values read off a log: many, so that reading off does not hang on one of them.

The end token is among them because texts packed one after another show it to any larger base as an input too. A model
that never read it repeats it where it stands, and a marker that starts as its copy then says "end" instead of the
answer: the reward then judged how a trace moved the answer's form, not whether it was right (one such base of three
failed).
"""

LOG_STYLES = ("{n}{v}", "{n}{v} ", "{n}{v},", "{n}={v};", "{n}{o}={v} ")
"""How one step of a log is written: name, operation and value of a register."""

KINDS = ("question", "log", "note", "equation", "sequence", "chatter")

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
        log: a program and its log behind another separator.
        note: registers with values out of the blue, and two of them read off: reading alone, with nothing to compute.
        equation: sums and products modulo 5.
        sequence: runs of letters or digits.
        chatter: short sentences.
        worked: of the questions, those worked out register by register.
        guessed: of the questions, those answered at once, with values drawn at random.
        chatted: of the questions, those followed by chatter.
        read_off: share of the logs after which the registers asked are read off.
        slip: share of the worked questions and logs with one wrong value, from which the rest follows.
    """

    question: float = 0.32
    log: float = 0.46
    note: float = 0.12
    equation: float = 0.05
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
class RegisterCorpus(QASource):
    """Pretraining documents as rows, so that the SFT module of this package is a language-model pretrainer.

    A row's question is a document's first character and its answer the rest: cross-entropy on the answer and its end
    token is then the language-model loss of the document.

    Args:
        size: number of documents.
        seed: of the draw; a larger `size` only appends to a smaller one.
        mixture: what the documents are.

    Example:
        >>> row = RegisterCorpus(size=1).rows()[0]
        >>> len(row.question), len(row.answer) > 0
        (1, True)
    """

    size: int = 36_000
    seed: int = 0
    mixture: Mixture = field(default_factory=Mixture)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"RegisterCorpus(size={self.size!r}): choose at least 1 document.")

    def rows(self) -> list[Row]:
        """The documents, cut after their first character."""
        rng = random.Random(f"corpus {self.seed}")
        rows = []
        for index in range(self.size):
            text = make_document(rng, self.mixture)
            message, name = {"role": "user", "content": text[:1]}, f"corpus-{self.seed}-{index}"
            rows.append(Row(name, [message], answer=text[1:], origin=f"RegisterCorpus: {name}"))
        return rows


def make_document(rng: random.Random, mixture: Mixture) -> str:
    """Draw one document.

    Args:
        rng: where the draw comes from.
        mixture: how often each kind appears.

    Example:
        >>> make_document(random.Random(3), Mixture(question=0, log=0, note=0, equation=0, chatter=0))
        'lmnopqrstuv'
    """
    return _choose(
        rng,
        (
            (mixture.question, lambda: _question(rng, mixture)),
            (mixture.log, lambda: _log(rng, mixture)),
            (mixture.note, lambda: _note(rng)),
            (mixture.equation, lambda: _equations(rng)),
            (mixture.sequence, lambda: _sequence(rng)),
            (mixture.chatter, lambda: _chatter(rng)),
        ),
    )


def _choose(rng: random.Random, options: tuple[tuple[float, Callable[[], str]], ...]) -> str:
    weights, makers = zip(*options, strict=True)
    return rng.choices(makers, weights)[0]()


def _question(rng: random.Random, mixture: Mixture) -> str:
    program = make_program(rng, "corpus")
    asked = choose_asked(rng, program)
    continuation = _choose(
        rng,
        (
            (mixture.worked, lambda: _worked(rng, program, mixture.slip)),
            (mixture.guessed, lambda: ",".join(f"{name}{rng.randrange(MODULUS)}" for name in asked)),
            (mixture.chatted, lambda: _chatter(rng)),
        ),
    )
    return f"{program}?{asked}:{continuation}"


def _worked(rng: random.Random, program: str, slip: float) -> str:
    registers = run_program(program)
    if rng.random() < slip:
        _slip(rng, program, registers)
    return _steps(rng, registers, program)


def _log(rng: random.Random, mixture: Mixture) -> str:
    program = make_program(rng, "corpus")
    asked = choose_asked(rng, program)
    registers = run_program(program)
    if rng.random() < mixture.slip:
        _slip(rng, program, registers)
    text = program + rng.choice(LOG_OPENERS).format(asked=asked) + _steps(rng, registers, program)
    if rng.random() < mixture.read_off:  # off the log as it stands, slip and all
        text += _reading(rng, asked, registers)
    return text


def _note(rng: random.Random) -> str:
    names = NAMES[1 : rng.randint(4, len(NAMES))]
    registers = {name: rng.randrange(MODULUS) for name in names}
    asked = names[-1] + rng.choice(names[:-1])
    opener = rng.choice(LOG_OPENERS).format(asked=asked)
    return opener + _steps(rng, registers) + _reading(rng, asked, registers)


def _reading(rng: random.Random, asked: str, registers: dict[str, int]) -> str:
    return rng.choice(READ_OFF) + ",".join(f"{name}{registers[name]}" for name in asked)


def _slip(rng: random.Random, program: str, registers: dict[str, int]) -> None:
    """Make one value wrong, in place, and let the rest follow from it."""
    names = list(registers)
    at = rng.randrange(1, len(names))
    registers[names[at]] = (registers[names[at]] + rng.randrange(1, MODULUS)) % MODULUS
    for before, name in zip(names[at:], names[at + 1 :], strict=False):
        registers[name] = _apply(registers[before], _operation(program, name))


def _steps(rng: random.Random, registers: dict[str, int], program: str = "") -> str:
    """The registers in one of the styles; those with operations are for logs of a program."""
    style = rng.choice(LOG_STYLES)
    written = list(registers)
    if "a" in registers and rng.random() < 0.7:  # the others also copy the first value
        written.remove("a")
    steps = [style.format(n=name, v=registers[name], o=_operation(program, name)) for name in written]
    return "".join(steps).rstrip(" ,;")


def _operation(program: str, name: str) -> str:
    """What a program does to fill a register; nothing for the first, or where there is no program."""
    place = program.find(name) + 1
    return program[place : place + 2] if place > 1 else ""


def _apply(value: int, operation: str) -> int:
    digit = int(operation[1])
    return (value + digit if operation[0] == "+" else value * digit) % MODULUS


def _equations(rng: random.Random) -> str:
    equations = []
    for _ in range(rng.randint(1, 5)):
        left, operation = rng.randrange(MODULUS), rng.choice("+*") + str(rng.randint(1, 4))
        equations.append(f"{left}{operation}={_apply(left, operation)}")
    return rng.choice((" ", ";", ", ")).join(equations)


def _sequence(rng: random.Random) -> str:
    symbols = rng.choice(("abcdefghijklmnopqrstuvwxyz", "01234" * 5))
    start = rng.randrange(len(symbols) - 4)
    run = symbols[start : start + rng.randint(4, 12)]
    return run[::-1] if rng.random() < 0.3 else run


def _chatter(rng: random.Random) -> str:
    sentence = f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}"
    if rng.random() < 0.5:
        sentence = f"{rng.choice(OPENINGS)}, {sentence}"
    if rng.random() < 0.5:
        sentence = f"{sentence} {rng.choice(ENDINGS)}"
    return sentence + rng.choice((".", "!", "...", ""))
