"""Pointer chasing: a generated task in which every step is a lookup in the question.

`cf ad ga hb eh bg de fc?a42:` is a map of eight places, each of which leads to another, in any order. It asks where a
walk from a is after four steps and after two. The walk visits d, e, h, b, so the answer is `4b,2e`. A model that writes
the places in its trace needs one lookup at a time; a model that answers directly has to chain all lookups.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.tasks.base import SPLITS, MadeRows, Problem, split_by_hash

PLACES = "abcdefgh"
MIN_STEPS, MAX_STEPS = 4, 6

_QUESTION = re.compile(r"((?:[a-h]{2} ){7}[a-h]{2})(?:\?([a-h])([1-6])([1-6]):)?.*")


def split_of(pointers: dict[str, str]) -> str:
    """The split of a map, chosen by a hash that does not depend on the order of its pairs.

    Example:
        >>> cycle = dict(zip(PLACES, PLACES[1:] + PLACES[:1]))
        >>> split_of(cycle) == split_of(dict(reversed(cycle.items())))
        True
    """
    return split_by_hash("".join(pointers[place] for place in PLACES))


def make_map(rng: random.Random, split: str) -> dict[str, str]:
    """Sample a map of a split: one cycle through all places, so that a walk of six steps visits no place twice.

    Args:
        rng: source of randomness.
        split: a key of `SPLITS`.
    """
    if split not in SPLITS:
        raise InputError(f"split={split!r} is not known.{nearest(split, SPLITS)}")
    while True:
        order = rng.sample(PLACES, len(PLACES))
        pointers = dict(zip(order, order[1:] + order[:1], strict=True))
        if split_of(pointers) == split:
            return pointers


def write_map(rng: random.Random, pointers: dict[str, str]) -> str:
    """A map as text, with its pairs in random order."""
    return " ".join(place + pointers[place] for place in rng.sample(PLACES, len(PLACES)))


def choose_asked(rng: random.Random) -> str:
    """Sample a question: a start and two numbers of steps, the larger one first.

    >>> choose_asked(random.Random(1))
    'b43'
    """
    last = rng.randint(MIN_STEPS, MAX_STEPS)
    return f"{rng.choice(PLACES)}{last}{rng.randint(2, last - 1)}"


def walk(pointers: dict[str, str], start: str, steps: int) -> str:
    """The places that a walk visits in a number of steps.

    >>> walk({"a": "d", "d": "a"}, "a", 3)
    'dad'
    """
    places = [start]
    for _ in range(steps):
        places.append(pointers[places[-1]])
    return "".join(places[1:])


def answer(places: str, asked: str) -> str:
    """The answer: the places after the numbers of steps in the question, in the same order.

    >>> answer("dehb", "a42")
    '4b,2e'
    """
    return ",".join(f"{number}{places[int(number) - 1]}" for number in asked[1:])


def worked_trace(question: str) -> str:
    """A correct trace: for every step its number, the place it leaves and the place it reaches.

    Example:
        >>> worked_trace("cf ad ga hb eh bg de fc?a42:")
        '1ad2de3eh4hb'
    """
    match = _QUESTION.fullmatch(question)
    if match is None or match[2] is None:
        raise InputError(
            f"question={question!r} is not a PointerChasing question. Give one such as 'cf ad ga hb eh bg de fc?a42:'."
        )
    pointers = {pair[0]: pair[1] for pair in match[1].split()}
    places = match[2] + walk(pointers, match[2], int(match[3]))
    return "".join(f"{number}{places[number - 1 : number + 1]}" for number in range(1, len(places)))


@dataclass
class PointerChasing(MadeRows):
    """Questions about walks on a map and their answers, without reasoning.

    Rows are distinct and depend on the seed alone; a larger `size` only appends rows. The splits and the base model's
    pretraining text have no map in common.

    Args:
        split: the split of the maps.
        size: number of rows.
        seed: seed of the sampling.

    Example:
        >>> row = PointerChasing("train", size=3).rows()[0]
        >>> worked_trace(row.question)[-1] == row.answer[1]
        True
    """

    task = "pointers"

    @override
    def draw(self, rng: random.Random) -> Problem:
        pointers = make_map(rng, self.split)
        asked = choose_asked(rng)
        places = walk(pointers, asked[0], int(asked[1]))
        return Problem(f"{write_map(rng, pointers)}?{asked}:", answer(places, asked))
