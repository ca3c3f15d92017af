"""The sloppy report: register programs whose answers are mostly words, of which a few tokens are hard.

`a4b*2c+2d+3e*4?ebc:` is a register program as in `registers`, of four or five operations, and asks for three registers.
The answer is a report of 31 tokens: `good question, let me see. e is 2, so it is b 3, sum of c is 0. maybe ask me
later. ok bye.` Three of the tokens are digits to be computed, three are names to be copied, three are words that a coin
decides and nobody can know; the rest never changes. Only the digits need a trace, and they are a tenth of the answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

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
    """The last register of a program and two earlier ones that had to be computed too.

    Example:
        >>> choose_asked(random.Random(0), "a4b*2c+2d+3")
        'dcb'
    """
    computed = list(run_program(program))[1:]
    return computed[-1] + "".join(rng.sample(computed[:-1], 2))


def write_report(rng: random.Random, registers: Mapping[str, int], asked: str) -> str:
    """A report of three registers, with words as coins decide.

    Args:
        rng: the coins.
        registers: values by name.
        asked: three of the names.
    """
    words = {"opening": rng.choice(OPENINGS), "link": rng.choice(LINKS), "closing": rng.choice(CLOSINGS)}
    values = [part for name in asked for part in (name, registers[name])]
    return REPORT.format(*values, **words)


@dataclass
class SloppyReports(MadeRows):
    """Questions about register programs whose answers are reports, without any reasoning.

    Rows follow from the seed alone, are distinct, and a larger `size` only appends to a smaller one. Programs of
    different splits never meet, nor do they meet those of the base model's pretraining text. The rows' `checks` are
    the three registers with their values.

    Args:
        split: which programs.
        size: number of rows.
        seed: of the draw.

    Example:
        >>> row = SloppyReports("train", size=3).rows()[0]
        >>> all(check in row.answer for check in row.checks)
        True
    """

    task = "reports"

    def draw(self, rng: random.Random) -> Problem:
        """A program of four or five operations with three registers asked."""
        program = make_program(rng, self.split)
        while len(run_program(program)) <= MIN_OPERATIONS:  # the first register is not computed
            program = make_program(rng, self.split)
        asked = choose_asked(rng, program)
        registers = run_program(program)
        first, second, third = (str(registers[name]) for name in asked)
        checks = (f"{asked[0]} is {first}", f"{asked[1]} {second}", f"{asked[2]} is {third}")
        return Problem(f"{program}?{asked}:", write_report(rng, registers, asked), checks)
