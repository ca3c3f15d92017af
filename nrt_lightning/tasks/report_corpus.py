"""Pretraining text of the report task: programs, logs and chatter, without a marker.

Questions are rarely worked out, and then mostly wrong. Reports are read off logs after separators and never follow a
question that was worked out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.tasks import reports
from nrt_lightning.tasks.pretraining import Mixture, PretrainingText, apply, chatter, choose
from nrt_lightning.tasks.register_corpus import LOG_OPENERS, READ_OFF, operation_of, write_steps
from nrt_lightning.tasks.registers import MODULUS, NAMES, make_program, run_program
from nrt_lightning.tasks.reports import choose_asked, write_report
from nrt_lightning.tasks.word_tokenizer import first_piece

SEPARATORS = tuple(separator for separator in READ_OFF if separator.strip())  # the word tokenizer drops spaces
READINGS = ("{n} is {v}", "is {n} {v}")
LINKS = ("so it", "then it", "sum of", "now", "i think", "well", "my list of", "")
PHRASES = (
    *(f"{word} question" for word in reports.OPENINGS), "let me see", "wait", "right", "oh", "hm", "i knew it",
    *(f"{word} ask me later" for word in reports.CLOSINGS), "ok bye", "two of them", "for now", "they saw it",
    "of course",
)  # fmt: skip
"""Phrases between values that are read off: those of the report and others, in random order."""

MAX_PHRASES = 2  # between two values


def sloppy_mixture() -> Mixture:
    """A mixture with few worked questions; sums and reading off need practice."""
    return Mixture(
        question=0.20, log=0.52, note=0.14, lesson=0.10, sequence=0.0, chatter=0.04,
        worked=0.11, guessed=0.09, chatted=0.80, read_off=0.6,
    )  # fmt: skip


@dataclass
class ReportCorpus(PretrainingText):
    """Documents about register programs, in which values are read off a log within sentences.

    Args:
        size: number of documents; a larger size only appends documents.
        seed: seed of the sampling.
        mixture: weights of the kinds of documents; its `slip` applies to logs only.
        sloppiness: probability that a step of a worked question has a random value; the next step continues from it.
        reports: fraction of the readings of logs and notes that are reports; the others state the values differently.
        made_up: fraction of the chatted questions that are followed by a report of random values.

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
                raise InputError(
                    f"ReportCorpus({name}={getattr(self, name)!r}): out of range. Give a number from 0 to 1."
                )

    @override
    def cut(self, text: str) -> tuple[str, str]:
        return first_piece(text)

    @override
    def question(self, rng: random.Random) -> str:
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

    @override
    def log(self, rng: random.Random) -> str:
        program = make_program(rng, "corpus")
        asked = choose_asked(rng, program)
        registers = slipping(rng, program, self.mixture.slip / len(run_program(program)))
        text = program + rng.choice(LOG_OPENERS).format(asked=asked) + write_steps(rng, registers, program)
        if rng.random() < self.mixture.read_off:  # with the slips, if there are any
            text += rng.choice(SEPARATORS) + self.reading(rng, asked, registers)
        return text

    @override
    def note(self, rng: random.Random) -> str:
        names = NAMES[1 : rng.randint(4, len(NAMES))]
        registers = {name: rng.randrange(MODULUS) for name in names}
        asked = names[-1] + "".join(rng.sample(names[:-1], 2))
        opener = rng.choice(LOG_OPENERS).format(asked=asked)
        return opener + write_steps(rng, registers) + rng.choice(SEPARATORS) + self.reading(rng, asked, registers)

    def chat(self, rng: random.Random, asked: str, guesses: dict[str, int]) -> str:
        """Chatter, possibly followed by a report of random values."""
        text = chatter(rng)
        if self.made_up and rng.random() < self.made_up:
            text += rng.choice(SEPARATORS) + write_report(rng, guesses, asked)
        return text

    def reading(self, rng: random.Random, asked: str, registers: dict[str, int]) -> str:
        """Values in a report, or among phrases in random order."""
        if rng.random() < self.reports:
            return write_report(rng, registers, asked)
        parts = []
        for name in asked:
            value = rng.choice(READINGS).format(n=name, v=registers[name])
            parts.append(f"{phrases(rng)} {rng.choice(LINKS)} {value}{rng.choice(',.')}")
        return " ".join(f"{' '.join(parts)} {phrases(rng)}".split())


def slipping(rng: random.Random, program: str, chance: float) -> dict[str, int]:
    """The registers of a program in which each step has a random value with a given probability.

    The next step continues from the random value.

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
    """Up to `MAX_PHRASES` random phrases."""
    return " ".join(phrase + rng.choice(",.") for phrase in rng.choices(PHRASES, k=rng.randint(0, MAX_PHRASES)))
