"""The register task's pretraining text: programs, logs and talk, and never a marker."""

from __future__ import annotations

import random
from dataclasses import dataclass

from nrt_lightning.tasks.pretraining import PretrainingText, apply, chatter, choose
from nrt_lightning.tasks.registers import MODULUS, NAMES, choose_asked, make_program, run_program
from nrt_lightning.tasks.tiny_tokenizer import EOS

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


@dataclass
class RegisterCorpus(PretrainingText):
    """Documents about register programs: worked out, guessed at, chatted about, logged and read off.

    Args:
        size: number of documents.
        seed: of the draw; a larger `size` only appends to a smaller one.
        mixture: what the documents are.

    Example:
        >>> row = RegisterCorpus(size=1).rows()[0]
        >>> len(row.question), len(row.answer) > 0
        (1, True)
    """

    def question(self, rng: random.Random) -> str:
        """A program with two registers asked, worked out, guessed at or chatted about."""
        mixture, program = self.mixture, make_program(rng, "corpus")
        asked = choose_asked(rng, program)
        continuation = choose(
            rng,
            (
                (mixture.worked, lambda: self._worked(rng, program)),
                (mixture.guessed, lambda: ",".join(f"{name}{rng.randrange(MODULUS)}" for name in asked)),
                (mixture.chatted, lambda: chatter(rng)),
            ),
        )
        return f"{program}?{asked}:{continuation}"

    def log(self, rng: random.Random) -> str:
        """A program with its registers filled, and often two of them read off."""
        program = make_program(rng, "corpus")
        asked = choose_asked(rng, program)
        registers = self._registers(rng, program)
        text = program + rng.choice(LOG_OPENERS).format(asked=asked) + write_steps(rng, registers, program)
        if rng.random() < self.mixture.read_off:  # off the log as it stands, slip and all
            text += _reading(rng, asked, registers)
        return text

    def note(self, rng: random.Random) -> str:
        """Registers with values from nowhere, and two of them read off."""
        names = NAMES[1 : rng.randint(4, len(NAMES))]
        registers = {name: rng.randrange(MODULUS) for name in names}
        asked = names[-1] + rng.choice(names[:-1])
        opener = rng.choice(LOG_OPENERS).format(asked=asked)
        return opener + write_steps(rng, registers) + _reading(rng, asked, registers)

    def _worked(self, rng: random.Random, program: str) -> str:
        return write_steps(rng, self._registers(rng, program), program)

    def _registers(self, rng: random.Random, program: str) -> dict[str, int]:
        """A program's registers, now and then with a slip."""
        registers = run_program(program)
        if rng.random() < self.mixture.slip:
            _slip(rng, program, registers)
        return registers


def _reading(rng: random.Random, asked: str, registers: dict[str, int]) -> str:
    return rng.choice(READ_OFF) + ",".join(f"{name}{registers[name]}" for name in asked)


def _slip(rng: random.Random, program: str, registers: dict[str, int]) -> None:
    """Make one value wrong, in place, and let the rest follow from it."""
    names = list(registers)
    at = rng.randrange(1, len(names))
    registers[names[at]] = (registers[names[at]] + rng.randrange(1, MODULUS)) % MODULUS
    for before, name in zip(names[at:], names[at + 1 :], strict=False):
        registers[name] = apply(registers[before], operation_of(program, name), MODULUS)


def write_steps(rng: random.Random, registers: dict[str, int], program: str = "") -> str:
    """The registers in one of the styles; those with operations are for logs of a program."""
    style = rng.choice(LOG_STYLES)
    written = list(registers)
    if "a" in registers and rng.random() < 0.7:  # the others also copy the first value
        written.remove("a")
    steps = [style.format(n=name, v=registers[name], o=operation_of(program, name)) for name in written]
    return "".join(steps).rstrip(" ,;")


def operation_of(program: str, name: str) -> str:
    """What a program does to fill a register; nothing for the first, or where there is no program.

    >>> operation_of("a4b*2c+2d+3", "c")
    '+2'
    """
    place = program.find(name) + 1
    return program[place : place + 2] if place > 1 else ""
