"""Pointer chasing: a task made in code whose every step is a look into the question.

`cf ad ga hb eh bg de fc?a42:` is a map of eight places, each of which leads to another, written in any order; it asks
where a walk from a is after four steps and after two. The places met are d, e, h, b: the answer is `4b,2e`. A model
that writes the places down on the way needs one look for each; one that must answer at once has to chain them all.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.tasks.base import SHARES, MadeRows, Problem, split_by_hash

PLACES = "abcdefgh"
MIN_STEPS, MAX_STEPS = 4, 6

_QUESTION = re.compile(r"((?:[a-h]{2} ){7}[a-h]{2})(?:\?([a-h])([1-6])([1-6]):)?.*")


def split_of(pointers: dict[str, str]) -> str:
    """The split a map belongs to, decided by a hash of it; in which order it is written does not matter.

    Example:
        >>> cycle = dict(zip(PLACES, PLACES[1:] + PLACES[:1]))
        >>> split_of(cycle) == split_of(dict(reversed(cycle.items())))
        True
    """
    return split_by_hash("".join(pointers[place] for place in PLACES))


def make_map(rng: random.Random, split: str) -> dict[str, str]:
    """Draw a map of a split: one cycle through all places, so that a walk of six steps meets none of them twice.

    Args:
        rng: where the draw comes from.
        split: a key of `made_rows.SHARES`.
    """
    if split not in SHARES:
        raise InputError(f"split={split!r} is not known.{nearest(split, SHARES)}")
    while True:
        order = rng.sample(PLACES, len(PLACES))
        pointers = dict(zip(order, order[1:] + order[:1], strict=True))
        if split_of(pointers) == split:
            return pointers


def write_map(rng: random.Random, pointers: dict[str, str]) -> str:
    """A map as text, its pairs in an order drawn."""
    return " ".join(place + pointers[place] for place in rng.sample(PLACES, len(PLACES)))


def choose_asked(rng: random.Random) -> str:
    """A start and two numbers of steps, the larger one first.

    >>> choose_asked(random.Random(1))
    'b43'
    """
    last = rng.randint(MIN_STEPS, MAX_STEPS)
    return f"{rng.choice(PLACES)}{last}{rng.randint(2, last - 1)}"


def walk(pointers: dict[str, str], start: str, steps: int) -> str:
    """The places met in a number of steps.

    >>> walk({"a": "d", "d": "a"}, "a", 3)
    'dad'
    """
    places = [start]
    for _ in range(steps):
        places.append(pointers[places[-1]])
    return "".join(places[1:])


def answer(places: str, asked: str) -> str:
    """The places met after the steps asked, in the order asked.

    >>> answer("dehb", "a42")
    '4b,2e'
    """
    return ",".join(f"{number}{places[int(number) - 1]}" for number in asked[1:])


def worked_trace(question: str) -> str:
    """A correct trace: every step's number, the place it leaves and the place it leads to.

    Example:
        >>> worked_trace("cf ad ga hb eh bg de fc?a42:")
        '1ad2de3eh4hb'
    """
    match = _QUESTION.fullmatch(question)
    if match is None or match[2] is None:
        raise InputError(f"question={question!r} is not one of PointerChasing; write 'cf ad ga hb eh bg de fc?a42:'.")
    pointers = {pair[0]: pair[1] for pair in match[1].split()}
    places = match[2] + walk(pointers, match[2], int(match[3]))
    return "".join(f"{number}{places[number - 1 : number + 1]}" for number in range(1, len(places)))


@dataclass
class PointerChasing(MadeRows):
    """Questions about walks on a map with their answers, without any reasoning.

    Rows follow from the seed alone, are distinct, and a larger `size` only appends to a smaller one. Maps of different
    splits never meet, nor do they meet those of the base model's pretraining text.

    Args:
        split: which maps.
        size: number of rows.
        seed: of the draw.

    Example:
        >>> row = PointerChasing("train", size=3).rows()[0]
        >>> worked_trace(row.question)[-1] == row.answer[1]
        True
    """

    task = "pointers"

    def draw(self, rng: random.Random) -> Problem:
        """A map with two places asked."""
        pointers = make_map(rng, self.split)
        asked = choose_asked(rng)
        places = walk(pointers, asked[0], int(asked[1]))
        return Problem(f"{write_map(rng, pointers)}?{asked}:", answer(places, asked))
