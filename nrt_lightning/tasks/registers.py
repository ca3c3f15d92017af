"""Register programs: a task made in code, small enough to learn on one CPU core and impossible to guess.

`a4b*2c+2d+3?dc:` sets register a to 4 and then fills every next register from the one before it, modulo 5:
b = a * 2 = 3, c = b + 2 = 0, d = c + 3 = 3. It asks for the last register and an earlier one: `d3,c0`. A model that
writes the values down on the way only ever needs one small step at a time; a model that must answer at once needs
all of them together.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.tasks.base import SHARES, MadeRows, Problem, split_by_hash

MODULUS = 5
NAMES = "abcdef"
MIN_OPERATIONS, MAX_OPERATIONS = 3, 5
OPERATIONS = ("+1", "+2", "+3", "+4", "*2", "*3", "*4")
_HEAD = re.compile(rf"a[0-4](?:[b-f][+*][1-4]){{{MIN_OPERATIONS}}}")
_PROGRAM = re.compile(rf"a[0-4](?:[b-f][+*][1-4]){{{MIN_OPERATIONS},{MAX_OPERATIONS}}}")


def split_of(program: str) -> str:
    """The split a program belongs to, decided by a hash of its first value and first three operations.

    Longer programs follow their beginning, so no split holds the continuation of another split's program either.

    Args:
        program: the text of a program, without the question.

    Example:
        >>> split_of("a4b*2c+2d+3") == split_of("a4b*2c+2d+3e*4")
        True
    """
    head = _HEAD.match(program)
    if head is None:
        raise InputError(f"program={program!r} is not a register program; write one like 'a4b*2c+2d+3'.")
    return split_by_hash(head[0])


def make_program(rng: random.Random, split: str) -> str:
    """Draw a program of a split, of three to five operations.

    Args:
        rng: where the draw comes from.
        split: a key of `SHARES`.

    Example:
        >>> program = make_program(random.Random(0), "train")
        >>> split_of(program)
        'train'
    """
    if split not in SHARES:
        raise InputError(f"split={split!r} is not known.{nearest(split, SHARES)}")
    while True:  # a share of at least 7.5 % is met soon
        names = NAMES[1 : 1 + rng.randint(MIN_OPERATIONS, MAX_OPERATIONS)]
        program = f"a{rng.randrange(MODULUS)}" + "".join(name + rng.choice(OPERATIONS) for name in names)
        if split_of(program) == split:
            return program


def run_program(program: str) -> dict[str, int]:
    """Every register's value after a program, in the order they are filled.

    Args:
        program: the text of a program, with or without its question.

    Example:
        >>> run_program("a4b*2c+2d+3")
        {'a': 4, 'b': 3, 'c': 0, 'd': 3}
    """
    body = program.partition("?")[0]
    names = body[:1] + body[2::3]
    if not _PROGRAM.fullmatch(body) or not NAMES.startswith(names):
        raise InputError(f"program={program!r} is not a register program; write one like 'a4b*2c+2d+3'.")
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
        raise InputError(f"asked={asked!r}: {program!r} has no register {unknown[0]!r}; ask some of {list(registers)}.")
    return ",".join(f"{name}{registers[name]}" for name in asked)


def worked_trace(program: str) -> str:
    """A correct trace in its shortest form: the registers after the first, with their values.

    Example:
        >>> worked_trace("a4b*2c+2d+3?dc:")
        'b3c0d3'
    """
    return "".join(f"{name}{value}" for name, value in run_program(program).items() if name != "a")


def choose_asked(rng: random.Random, program: str) -> str:
    """The last register of a program and an earlier one that had to be computed too.

    Example:
        >>> choose_asked(random.Random(0), "a4b*2c+2d+3")[0]
        'd'
    """
    computed = list(run_program(program))[1:]
    return computed[-1] + rng.choice(computed[:-1])


@dataclass
class RegisterPrograms(MadeRows):
    """Questions about register programs with their answers, without any reasoning.

    Rows follow from the seed alone, are distinct, and a larger `size` only appends to a smaller one. Programs of
    different splits never meet, nor do they meet those of the base model's pretraining text.

    Args:
        split: which programs.
        size: number of rows.
        seed: of the draw.

    Example:
        >>> row = RegisterPrograms("train", size=3).rows()[0]
        >>> row.answer == answer(row.question, row.question[-3:-1])
        True
    """

    task = "registers"

    def draw(self, rng: random.Random) -> Problem:
        """A program with two registers asked."""
        program = make_program(rng, self.split)
        asked = choose_asked(rng, program)
        return Problem(f"{program}?{asked}:", answer(program, asked))
