"""Register programs: a generated task that one CPU core can learn and that cannot be guessed.

`a4b*2c+2d+3?dc:` sets register a to 4 and computes every next register from the previous one, modulo 5: b = a * 2 = 3,
c = b + 2 = 0, d = c + 3 = 3. It asks for the last register and an earlier one: `d3,c0`. A model that writes the values
in its trace needs one small step at a time; a model that answers directly needs all steps at once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.tasks.base import SPLITS, MadeRows, Problem, split_by_hash

MODULUS = 5
NAMES = "abcdef"
MIN_OPERATIONS, MAX_OPERATIONS = 3, 5
OPERATIONS = ("+1", "+2", "+3", "+4", "*2", "*3", "*4")
_HEAD = re.compile(rf"a[0-4](?:[b-f][+*][1-4]){{{MIN_OPERATIONS}}}")
_PROGRAM = re.compile(rf"a[0-4](?:[b-f][+*][1-4]){{{MIN_OPERATIONS},{MAX_OPERATIONS}}}")


def split_of(program: str) -> str:
    """The split of a program, chosen by a hash of its first value and first three operations.

    A longer program is in the split of its beginning, so no split continues a program of another split.

    Args:
        program: the text of a program, without the question.

    Example:
        >>> split_of("a4b*2c+2d+3") == split_of("a4b*2c+2d+3e*4")
        True
    """
    head = _HEAD.match(program)
    if head is None:
        raise InputError(f"program={program!r} is not a register program. Give one such as 'a4b*2c+2d+3'.")
    return split_by_hash(head[0])


def make_program(rng: random.Random, split: str, least: int = MIN_OPERATIONS) -> str:
    """Sample a program of a split, with three to five operations.

    Args:
        rng: source of randomness.
        split: a key of `SPLITS`.
        least: number of operations, from 3 to 5.

    Example:
        >>> program = make_program(random.Random(0), "train")
        >>> split_of(program)
        'train'
    """
    if split not in SPLITS:
        raise InputError(f"split={split!r} is not known.{nearest(split, SPLITS)}")
    while True:  # a split holds at least 7.5 % of the programs
        names = NAMES[1 : 1 + rng.randint(least, MAX_OPERATIONS)]
        program = f"a{rng.randrange(MODULUS)}" + "".join(name + rng.choice(OPERATIONS) for name in names)
        if split_of(program) == split:
            return program


def run_program(program: str) -> dict[str, int]:
    """The value of every register after a program, in the order they are set.

    Args:
        program: the text of a program, with or without its question.

    Example:
        >>> run_program("a4b*2c+2d+3")
        {'a': 4, 'b': 3, 'c': 0, 'd': 3}
    """
    body = program.partition("?")[0]
    names = body[:1] + body[2::3]
    if not _PROGRAM.fullmatch(body) or not NAMES.startswith(names):
        raise InputError(f"program={program!r} is not a register program. Give one such as 'a4b*2c+2d+3'.")
    value = int(body[1])
    registers = {"a": value}
    for name, operation, digit in zip(names[1:], body[3::3], body[4::3], strict=True):
        value = (value + int(digit) if operation == "+" else value * int(digit)) % MODULUS
        registers[name] = value
    return registers


def answer(program: str, asked: Sequence[str]) -> str:
    """The answer to a program's question, in the order asked.

    Args:
        program: the text of a program, with or without its question.
        asked: names of registers.

    Example:
        >>> answer("a4b*2c+2d+3", "dc")
        'd3,c0'
    """
    registers = run_program(program)
    unknown = [name for name in asked if name not in registers]
    if unknown:
        raise InputError(f"asked={asked!r}: {program!r} has no register {unknown[0]!r}, only {list(registers)}.")
    return ",".join(f"{name}{registers[name]}" for name in asked)


def worked_trace(program: str) -> str:
    """The shortest correct trace: the registers after the first, with their values.

    Example:
        >>> worked_trace("a4b*2c+2d+3?dc:")
        'b3c0d3'
    """
    return "".join(f"{name}{value}" for name, value in run_program(program).items() if name != "a")


def choose_asked(rng: random.Random, program: str, asked: int = 2) -> str:
    """Sample the registers to ask for: the last one and earlier ones that are computed too.

    Args:
        rng: source of randomness.
        program: the text of a program.
        asked: number of registers.

    Example:
        >>> choose_asked(random.Random(0), "a4b*2c+2d+3")[0]
        'd'
    """
    computed = list(run_program(program))[1:]
    return computed[-1] + "".join(rng.sample(computed[:-1], asked - 1))


def check_asked(name: str, asked: int) -> int:
    """The least number of operations of programs that ask for this many registers.

    Raises:
        InputError: the number is out of range.
    """
    if not 1 <= asked <= MAX_OPERATIONS:
        raise InputError(f"{name}.asked is {asked}: out of range. Give a number from 1 to {MAX_OPERATIONS}.")
    return max(asked, MIN_OPERATIONS)


@dataclass
class RegisterPrograms(MadeRows):
    """Questions about register programs and their answers, without reasoning.

    Rows are distinct and depend on the seed alone; a larger `size` only appends rows. The splits and the base model's
    pretraining text have no program in common.

    Args:
        split: the split of the programs.
        size: number of rows.
        seed: seed of the sampling.
        asked: number of registers asked for; programs have at least as many operations.

    Raises:
        InputError: a number is out of range, or the split is not known.

    Example:
        >>> row = RegisterPrograms("train", size=3).rows()[0]
        >>> row.answer == answer(row.question, row.question[-3:-1])
        True
    """

    task = "registers"
    asked: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.least = check_asked(type(self).__name__, self.asked)

    @override
    def draw(self, rng: random.Random) -> Problem:
        program = make_program(rng, self.split, self.least)
        asked = choose_asked(rng, program, self.asked)
        return Problem(f"{program}?{asked}:", answer(program, asked))
