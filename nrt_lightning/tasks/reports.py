"""Sloppy reports: register programs whose answers are mostly words, with a few hard tokens.

`a4b*2c+2d+3e*4?ebc:` is a register program as in `registers`, with four or five operations, and asks for three
registers. The answer is a report of 31 tokens: `good question, let me see. e is 2, so it is b 3, sum of c is 0. maybe
ask me later. ok bye.` Three tokens are digits to compute, three are names to copy, three are random words that cannot
be predicted, and the rest is fixed. Only the digits, a tenth of the answer, need a trace.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.tasks.base import MadeRows, Problem
from nrt_lightning.tasks.registers import make_program, run_program

MIN_OPERATIONS = 4

OPENINGS = ("good", "nice")
LINKS = ("so", "then")
CLOSINGS = ("maybe", "please")
REPORT = (
    "{opening} question, let me see. {0} is {1}, {link} it is {2} {3}, sum of {4} is {5}. "
    "{closing} ask me later. ok bye."
)


def choose_asked(rng: random.Random, program: str) -> str:
    """Sample the registers to ask for: the last one and two earlier ones that are computed too.

    Example:
        >>> choose_asked(random.Random(0), "a4b*2c+2d+3")
        'dcb'
    """
    computed = list(run_program(program))[1:]
    return computed[-1] + "".join(rng.sample(computed[:-1], 2))


def write_report(rng: random.Random, registers: Mapping[str, int], asked: str) -> str:
    """A report of three registers, with random words.

    Args:
        rng: source of randomness for the words.
        registers: values by name.
        asked: three of the names.
    """
    words = {"opening": rng.choice(OPENINGS), "link": rng.choice(LINKS), "closing": rng.choice(CLOSINGS)}
    values = [part for name in asked for part in (name, registers[name])]
    return REPORT.format(*values, **words)


@dataclass
class SloppyReports(MadeRows):
    """Questions about register programs whose answers are reports, without reasoning.

    Rows are distinct and depend on the seed alone; a larger `size` only appends rows. The splits and the base model's
    pretraining text have no program in common. The `checks` of a row are its three registers with their values.

    Args:
        split: the split of the programs.
        size: number of rows.
        seed: seed of the sampling.

    Example:
        >>> row = SloppyReports("train", size=3).rows()[0]
        >>> all(check in row.answer for check in row.checks)
        True
    """

    task = "reports"

    @override
    def draw(self, rng: random.Random) -> Problem:
        program = make_program(rng, self.split)
        while len(run_program(program)) <= MIN_OPERATIONS:  # the first register has no operation
            program = make_program(rng, self.split)
        asked = choose_asked(rng, program)
        registers = run_program(program)
        first, second, third = (str(registers[name]) for name in asked)
        checks = (f"{asked[0]} is {first}", f"{asked[1]} {second}", f"{asked[2]} is {third}")
        return Problem(f"{program}?{asked}:", write_report(rng, registers, asked), checks)
