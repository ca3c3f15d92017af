"""Pretraining text of the pointer task: maps, walks and chatter, without a marker."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.tasks.pointers import MAX_STEPS, PLACES, answer, choose_asked, make_map, walk, write_map
from nrt_lightning.tasks.pretraining import Mixture, PretrainingText, chatter, choose
from nrt_lightning.tasks.register_corpus import LOG_OPENERS, READ_OFF

STYLES = ("{i}{q}{p}", "{i}{q}{p} ", "{i}{q}{p},", "{i}={q}{p};", "{i}{p} ")
"""Formats of a step of a walk: its number, usually the place it leaves, and the place it reaches."""


def looking_mixture() -> Mixture:
    """A mixture with many lessons: lookups in a map are harder to learn than sums."""
    return Mixture(question=0.25, log=0.40, note=0.10, lesson=0.20)


@dataclass
class PointerCorpus(PretrainingText):
    """Documents about walks on maps: worked out, guessed, chatted about, logged and read off.

    Args:
        size: number of documents; a larger size only appends documents.
        seed: seed of the sampling.
        mixture: weights of the kinds of documents.

    Example:
        >>> row = PointerCorpus(size=1).rows()[0]
        >>> len(row.question), len(row.answer) > 0
        (1, True)
    """

    mixture: Mixture = field(default_factory=looking_mixture)

    @override
    def question(self, rng: random.Random) -> str:
        mixture, pointers, asked = self.mixture, make_map(rng, "corpus"), choose_asked(rng)
        continuation = choose(
            rng,
            (
                (mixture.worked, lambda: _steps(rng, asked[0], self._walk(rng, pointers, asked))),
                (mixture.guessed, lambda: answer("".join(rng.choices(PLACES, k=MAX_STEPS)), asked)),
                (mixture.chatted, lambda: chatter(rng)),
            ),
        )
        return f"{write_map(rng, pointers)}?{asked}:{continuation}"

    @override
    def log(self, rng: random.Random) -> str:
        pointers, asked = make_map(rng, "corpus"), choose_asked(rng)
        places = self._walk(rng, pointers, asked)
        text = write_map(rng, pointers) + rng.choice(LOG_OPENERS).format(asked=asked) + _steps(rng, asked[0], places)
        if rng.random() < self.mixture.read_off:  # with the slip, if there is one
            text += rng.choice(READ_OFF) + answer(places, asked)
        return text

    @override
    def note(self, rng: random.Random) -> str:
        asked = choose_asked(rng)
        places = "".join(rng.choices(PLACES, k=int(asked[1])))
        opener = rng.choice(LOG_OPENERS).format(asked=asked)
        return opener + _steps(rng, asked[0], places) + rng.choice(READ_OFF) + answer(places, asked)

    @override
    def lesson(self, rng: random.Random) -> str:
        # the pairs of a map of some or all places, then some of them again: a lookup is to repeat a pair
        places = rng.sample(PLACES, rng.randint(3, len(PLACES)))
        pairs = [place + after for place, after in zip(places, places[1:] + places[:1], strict=True)]
        again = rng.sample(pairs, rng.randint(2, len(pairs)))
        return " ".join(rng.sample(pairs, len(pairs))) + rng.choice(READ_OFF) + " ".join(again)

    def _walk(self, rng: random.Random, pointers: dict[str, str], asked: str) -> str:
        """The places of a walk, sometimes with one wrong step, from which the walk continues."""
        steps = int(asked[1])
        if rng.random() >= self.mixture.slip:
            return walk(pointers, asked[0], steps)
        right = rng.randrange(steps)  # steps before the slip
        before = walk(pointers, asked[0], right)
        lost = rng.choice(PLACES)
        return before + lost + walk(pointers, lost, steps - right - 1)


def _steps(rng: random.Random, start: str, places: str) -> str:
    """A walk in a random style."""
    style, before = rng.choice(STYLES), start + places
    steps = [style.format(i=i, q=before[i - 1], p=place) for i, place in enumerate(places, start=1)]
    return "".join(steps).rstrip(" ,;")
