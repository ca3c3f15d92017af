"""Pretraining text of the register task: programs, logs and chatter, without a marker."""

from __future__ import annotations

import random
from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.functional.validation import check_fraction
from nrt_lightning.tasks.pretraining import PretrainingText, apply, chatter, choose
from nrt_lightning.tasks.registers import (
    MODULUS,
    NAMES,
    answer,
    check_asked,
    choose_asked,
    make_program,
    run_program,
)
from nrt_lightning.tasks.tiny_tokenizer import EOS

LOG_OPENERS = ("!{asked} ", "#{asked}:", "@{asked}>", "?{asked} ")
"""Formats that announce the requested registers in a log. Only questions use `?dc:`; logs use its signs separately."""

EXPLAINED = "{answer}<{question}="
"""How a question stands behind its answer in text that explains answers. `AnswerConditioned.template` is the same.

The sign at the end keeps steps away from the end of a bare question.
"""

READ_OFF = ("|", "/", "=>", "~", "\n", " - ", EOS)
"""Separators before values read off a log; several, so that reading off does not depend on one of them.

The end token is one of them because larger bases see it as an input, too, in packed pretraining texts. A model that has
never seen it as an input repeats it. A marker initialized from it then predicts the end instead of the answer, and the
reward measures how a trace changes the form of the answer, not its correctness (one of three such bases failed).
"""

LOG_STYLES = ("{n}{v}", "{n}{v} ", "{n}{v},", "{n}={v};", "{n}{o}={v} ")
"""Formats of a step in a log: name, operation and value of a register."""


@dataclass
class RegisterCorpus(PretrainingText):
    """Documents about register programs: worked out, guessed, chatted about, logged and read off.

    Args:
        size: number of documents; a larger size only appends documents.
        seed: seed of the sampling.
        mixture: weights of the kinds of documents.
        asked: number of registers asked for; programs have at least as many operations.
        made_up: fraction of the explained answers that are random values, whose explanation states them all the same.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> row = RegisterCorpus(size=1).rows()[0]
        >>> len(row.question), len(row.answer) > 0
        (1, True)
    """

    explains = True
    asked: int = 2
    made_up: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(f"{type(self).__name__}.made_up", self.made_up)
        self.least = check_asked(type(self).__name__, self.asked)

    @override
    def question(self, rng: random.Random) -> str:
        mixture, program = self.mixture, make_program(rng, "corpus", self.least)
        asked = choose_asked(rng, program, self.asked)
        question = f"{program}?{asked}:"
        return choose(
            rng,
            (
                (mixture.worked, lambda: question + self._worked(rng, program)),
                (mixture.guessed, lambda: question + ",".join(f"{name}{rng.randrange(MODULUS)}" for name in asked)),
                (mixture.chatted, lambda: question + chatter(rng)),
                (mixture.explained, lambda: self._explained(rng, program, asked)),
            ),
        )

    @override
    def log(self, rng: random.Random) -> str:
        program = make_program(rng, "corpus", self.least)
        asked = choose_asked(rng, program, self.asked)
        registers = self._registers(rng, program)
        text = program + rng.choice(LOG_OPENERS).format(asked=asked) + write_steps(rng, registers, program)
        if rng.random() < self.mixture.read_off:  # with the slip, if there is one
            text += _reading(rng, asked, registers)
        return text

    @override
    def note(self, rng: random.Random) -> str:
        names = NAMES[1 : rng.randint(4, len(NAMES))]
        registers = {name: rng.randrange(MODULUS) for name in names}
        asked = names[-1] + "".join(rng.sample(names[:-1], min(self.asked, len(names)) - 1))
        opener = rng.choice(LOG_OPENERS).format(asked=asked)
        return opener + write_steps(rng, registers) + _reading(rng, asked, registers)

    def _explained(self, rng: random.Random, program: str, asked: str) -> str:
        question = f"{program}?{asked}:"
        if rng.random() >= self.made_up:
            return EXPLAINED.format(answer=answer(program, asked), question=question) + self._worked(rng, program)
        registers = {name: rng.randrange(MODULUS) for name in run_program(program)}
        stated = ",".join(f"{name}{registers[name]}" for name in asked)
        return EXPLAINED.format(answer=stated, question=question) + write_steps(rng, registers, program)

    def _worked(self, rng: random.Random, program: str) -> str:
        return write_steps(rng, self._registers(rng, program), program)

    def _registers(self, rng: random.Random, program: str) -> dict[str, int]:
        """The registers of a program, sometimes with a slip."""
        registers = run_program(program)
        if rng.random() < self.mixture.slip:
            _slip(rng, program, registers)
        return registers


def _reading(rng: random.Random, asked: str, registers: dict[str, int]) -> str:
    return rng.choice(READ_OFF) + ",".join(f"{name}{registers[name]}" for name in asked)


def _slip(rng: random.Random, program: str, registers: dict[str, int]) -> None:
    """Change one value in place, and compute the next values from it."""
    names = list(registers)
    index = rng.randrange(1, len(names))
    registers[names[index]] = (registers[names[index]] + rng.randrange(1, MODULUS)) % MODULUS
    for before, name in zip(names[index:], names[index + 1 :], strict=False):
        registers[name] = apply(registers[before], operation_of(program, name), MODULUS)


def write_steps(rng: random.Random, registers: dict[str, int], program: str = "") -> str:
    """The registers in a random style; styles with operations need a program."""
    style = rng.choice(LOG_STYLES)
    written = list(registers)
    if "a" in registers and rng.random() < 0.7:  # otherwise the log also copies the first value
        written.remove("a")
    steps = [style.format(n=name, v=registers[name], o=operation_of(program, name)) for name in written]
    return "".join(steps).rstrip(" ,;")


def operation_of(program: str, name: str) -> str:
    """The operation that sets a register in a program; empty for the first register or without a program.

    >>> operation_of("a4b*2c+2d+3", "c")
    '+2'
    """
    start = program.find(name) + 1
    return program[start : start + 2] if start > 1 else ""
