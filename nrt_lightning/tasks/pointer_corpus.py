"""The pointer task's pretraining text: maps, walks and talk, and never a marker."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from nrt_lightning.tasks.pointers import MAX_STEPS, PLACES, answer, choose_asked, make_map, walk, write_map
from nrt_lightning.tasks.pretraining import Mixture, PretrainingText, chatter, choose
from nrt_lightning.tasks.register_corpus import LOG_OPENERS, READ_OFF

STYLES = ("{i}{q}{p}", "{i}{q}{p} ", "{i}{q}{p},", "{i}={q}{p};", "{i}{p} ")
"""How one step of a walk is written: its number, where it comes from, mostly, and where it leads."""


def looking_mixture() -> Mixture:
    """Many lessons: a look into the map is harder to learn than a sum."""
    return Mixture(question=0.25, log=0.40, note=0.10, lesson=0.20)


@dataclass
class PointerCorpus(PretrainingText):
    """Documents about walks on maps: worked out, guessed at, chatted about, logged and read off.

    Args:
        size: number of documents.
        seed: of the draw; a larger `size` only appends to a smaller one.
        mixture: what the documents are.

    Example:
        >>> row = PointerCorpus(size=1).rows()[0]
        >>> len(row.question), len(row.answer) > 0
        (1, True)
    """

    mixture: Mixture = field(default_factory=looking_mixture)

    def question(self, rng: random.Random) -> str:
        """A map with two places asked, worked out, guessed at or chatted about."""
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

    def log(self, rng: random.Random) -> str:
        """A map with a walk on it, and often two of its places read off."""
        pointers, asked = make_map(rng, "corpus"), choose_asked(rng)
        places = self._walk(rng, pointers, asked)
        text = write_map(rng, pointers) + rng.choice(LOG_OPENERS).format(asked=asked) + _steps(rng, asked[0], places)
        if rng.random() < self.mixture.read_off:  # off the walk as it stands, slip and all
            text += rng.choice(READ_OFF) + answer(places, asked)
        return text

    def note(self, rng: random.Random) -> str:
        """Places without a map, and two of them read off."""
        asked = choose_asked(rng)
        places = "".join(rng.choices(PLACES, k=int(asked[1])))
        opener = rng.choice(LOG_OPENERS).format(asked=asked)
        return opener + _steps(rng, asked[0], places) + rng.choice(READ_OFF) + answer(places, asked)

    def lesson(self, rng: random.Random) -> str:
        """The pairs of a map, of all places or of fewer, and some of them once more: what a look into a map is."""
        places = rng.sample(PLACES, rng.randint(3, len(PLACES)))
        pairs = [place + after for place, after in zip(places, places[1:] + places[:1], strict=True)]
        again = rng.sample(pairs, rng.randint(2, len(pairs)))
        return " ".join(rng.sample(pairs, len(pairs))) + rng.choice(READ_OFF) + " ".join(again)

    def _walk(self, rng: random.Random, pointers: dict[str, str], asked: str) -> str:
        """The places of a walk, now and then with one wrong step, from which the rest follows."""
        steps = int(asked[1])
        if rng.random() >= self.mixture.slip:
            return walk(pointers, asked[0], steps)
        right = rng.randrange(steps)  # steps before the slip
        before = walk(pointers, asked[0], right)
        lost = rng.choice(PLACES)
        return before + lost + walk(pointers, lost, steps - right - 1)


def _steps(rng: random.Random, start: str, places: str) -> str:
    """A walk in one of the styles."""
    style, before = rng.choice(STYLES), start + places
    steps = [style.format(i=i, q=before[i - 1], p=place) for i, place in enumerate(places, start=1)]
    return "".join(steps).rstrip(" ,;")
