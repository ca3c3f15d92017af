"""The report task's pretraining text: programs, logs and talk, and never a marker.

That a question is worked out is rare, and mostly wrong then. Reports are read off logs behind separators, and never
follow a question that was worked out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from nrt_lightning.errors import InputError
from nrt_lightning.tasks import reports
from nrt_lightning.tasks.pretraining import Mixture, PretrainingText, apply, chatter, choose
from nrt_lightning.tasks.register_corpus import LOG_OPENERS, READ_OFF, operation_of, write_steps
from nrt_lightning.tasks.registers import MODULUS, NAMES, make_program, run_program
from nrt_lightning.tasks.reports import choose_asked, write_report
from nrt_lightning.tasks.word_tokenizer import first_piece

SEPARATORS = tuple(separator for separator in READ_OFF if separator.strip())  # this tokenizer drops space
READINGS = ("{n} is {v}", "is {n} {v}")
LINKS = ("so it", "then it", "sum of", "now", "i think", "well", "my list of", "")
PHRASES = (
    *(f"{word} question" for word in reports.OPENINGS), "let me see", "wait", "right", "oh", "hm", "i knew it",
    *(f"{word} ask me later" for word in reports.CLOSINGS), "ok bye", "two of them", "for now", "they saw it",
    "of course",
)  # fmt: skip
"""What else is said where values are read off: the report's phrases and others, in no order."""

MAX_PHRASES = 2  # between two values


def sloppy_mixture() -> Mixture:
    """Questions are seldom worked out; sums and reading off take practice."""
    return Mixture(
        question=0.20, log=0.52, note=0.14, lesson=0.10, sequence=0.0, chatter=0.04,
        worked=0.11, guessed=0.09, chatted=0.80, read_off=0.6,
    )  # fmt: skip


@dataclass
class ReportCorpus(PretrainingText):
    """Documents about register programs, in which what is read off a log stands in the middle of sentences.

    Args:
        size: number of documents.
        seed: of the draw; a larger `size` only appends to a smaller one.
        mixture: what the documents are; its `slip` is that of the logs.
        sloppiness: chance of every step of a worked question to be a value at random; the next goes on from there.
        reports: share of what is read off logs and notes that is a report; the rest says the values in other words.
        made_up: share of the questions only chatted about after which a report of values at random follows.

    Example:
        >>> row = ReportCorpus(size=1).rows()[0]
        >>> len(row.question) > 0, len(row.answer) > 0
        (True, True)
    """

    mixture: Mixture = field(default_factory=sloppy_mixture)
    sloppiness: float = 0.45
    reports: float = 0.5
    made_up: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sloppiness", "reports", "made_up"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"ReportCorpus({name}={getattr(self, name)!r}): choose a share from 0 to 1.")

    def cut(self, text: str) -> tuple[str, str]:
        """A document's first token, and the rest."""
        return first_piece(text)

    def question(self, rng: random.Random) -> str:
        """A program with three registers asked, worked out, guessed at or chatted about."""
        mixture, program = self.mixture, make_program(rng, "corpus")
        asked = choose_asked(rng, program)
        guesses = {name: rng.randrange(MODULUS) for name in asked}
        continuation = choose(
            rng,
            (
                (mixture.worked, lambda: write_steps(rng, slipping(rng, program, self.sloppiness), program)),
                (mixture.guessed, lambda: self.reading(rng, asked, guesses)),
                (mixture.chatted, lambda: self.chat(rng, asked, guesses)),
            ),
        )
        return f"{program}?{asked}:{continuation}"

    def log(self, rng: random.Random) -> str:
        """A program with its registers filled, and often three of them read off."""
        program = make_program(rng, "corpus")
        asked = choose_asked(rng, program)
        registers = slipping(rng, program, self.mixture.slip / len(run_program(program)))
        text = program + rng.choice(LOG_OPENERS).format(asked=asked) + write_steps(rng, registers, program)
        if rng.random() < self.mixture.read_off:  # off the log as it stands, slips and all
            text += rng.choice(SEPARATORS) + self.reading(rng, asked, registers)
        return text

    def note(self, rng: random.Random) -> str:
        """Registers with values from nowhere, and three of them read off."""
        names = NAMES[1 : rng.randint(4, len(NAMES))]
        registers = {name: rng.randrange(MODULUS) for name in names}
        asked = names[-1] + "".join(rng.sample(names[:-1], 2))
        opener = rng.choice(LOG_OPENERS).format(asked=asked)
        return opener + write_steps(rng, registers) + rng.choice(SEPARATORS) + self.reading(rng, asked, registers)

    def chat(self, rng: random.Random, asked: str, guesses: dict[str, int]) -> str:
        """Chatter, and perhaps a report made up."""
        text = chatter(rng)
        if self.made_up and rng.random() < self.made_up:
            text += rng.choice(SEPARATORS) + write_report(rng, guesses, asked)
        return text

    def reading(self, rng: random.Random, asked: str, registers: dict[str, int]) -> str:
        """Values as a report tells them, or among phrases in no order."""
        if rng.random() < self.reports:
            return write_report(rng, registers, asked)
        parts = []
        for name in asked:
            value = rng.choice(READINGS).format(n=name, v=registers[name])
            parts.append(f"{phrases(rng)} {rng.choice(LINKS)} {value}{rng.choice(',.')}")
        return " ".join(f"{' '.join(parts)} {phrases(rng)}".split())


def slipping(rng: random.Random, program: str, chance: float) -> dict[str, int]:
    """A program's registers where every step may be a value at random; the next goes on from what stands there.

    >>> slipping(random.Random(0), "a4b*2c+2d+3", 0)
    {'a': 4, 'b': 3, 'c': 0, 'd': 3}
    """
    value = int(program[1])
    registers = {program[0]: value}
    for name in list(run_program(program))[1:]:
        value = apply(value, operation_of(program, name), MODULUS)
        if rng.random() < chance:
            value = rng.randrange(MODULUS)
        registers[name] = value
    return registers


def phrases(rng: random.Random) -> str:
    """A few phrases, or none."""
    return " ".join(phrase + rng.choice(",.") for phrase in rng.choices(PHRASES, k=rng.randint(0, MAX_PHRASES)))
