"""Which words the traces of a policy gain and lose during training."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any

WORD = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")  # letters and digits apart, as in "b2"; a mark is a word
SHOWN = 12  # words on each side
LOOKS = 60  # of the curves, evenly over the run
PRIOR = 100.0  # words that the prior is worth


def words_of(trace: str) -> list[str]:
    """The words of a trace, in small letters.

    >>> words_of("Wait, b2 is 3.")
    ['wait', ',', 'b', '2', 'is', '3', '.']
    """
    return WORD.findall(trace.lower())


def log_odds(
    now: Counter[str], before: Counter[str], background: Counter[str], words: Collection[str] | None = None
) -> dict[str, tuple[float, float]]:
    """Log-odds ratio of every word with an informative Dirichlet prior, and its z-score.

    With counts y of n words, and prior counts a_w that sum to a0 (here `PRIOR` words in the proportions of the
    background), `log((y_w + a_w) / (n + a0 - y_w - a_w))` of now minus the same of before, and this divided by its
    standard deviation `sqrt(1 / (y_w + a_w) + 1 / (y'_w + a_w))`. Source: Monroe, Colaresi and Quinn, Fightin' Words,
    Political Analysis 2008, equations 15, 16, 20 and 22.

    Args:
        now: counts of words.
        before: counts to compare with.
        background: counts of all texts; it holds every word of both.
        words: those that are asked for; None for all.

    >>> odds = log_odds(Counter(a=9, b=1), Counter(a=1, b=9), Counter(a=10, b=10))
    >>> round(odds["a"][0], 3), round(odds["a"][1] + odds["b"][1], 3)
    (0.291, 0.0)
    """
    total = sum(background.values())
    sizes = [sum(counts.values()) + PRIOR for counts in (now, before)]
    found = {}
    for word in background if words is None else words:
        prior = PRIOR * background[word] / total
        filled = [counts[word] + prior for counts in (now, before)]
        rest = [max(size - value, 1e-9) for size, value in zip(sizes, filled, strict=True)]  # 0: there is one word only
        ratio = math.log(filled[0] / rest[0]) - math.log(filled[1] / rest[1])
        found[word] = (ratio, ratio / math.sqrt(1 / filled[0] + 1 / filled[1]))
    return found


def repetition(words: Sequence[str]) -> float:
    """Fraction of the pairs of neighbors that the trace had before.

    >>> repetition("a b a b a b".split()), repetition("a b c".split()), repetition([])
    (0.6, 0.0, 0.0)
    """
    pairs = list(pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def likeness(first: Counter[str], second: Counter[str]) -> float:
    """Shared words of two traces, as a fraction of the words of both: 1 if they have the same words.

    >>> likeness(Counter("aab"), Counter("ab")), likeness(Counter("a"), Counter("b"))
    (0.6666666666666666, 0.0)
    """
    union = sum((first | second).values())
    return sum((first & second).values()) / union if union else 1.0


def vocabulary(samples: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """How the words of traces changed; None with fewer than two looks at traces, or without words in them.

    Args:
        samples: lines of samples.jsonl, as `sample_of` gives them.

    Returns:
        `steps` of the looks; by look `words` (a trace), `repetition` and `likeness` to the trace of the first look
        for the same question; `gained` and `lost`: words with their log-odds against the first look, z-score, and
        number in a thousand words at every look.
    """
    looks: dict[int, Counter[str]] = {}
    sizes: dict[int, list[tuple[int, float]]] = {}
    greedy: dict[int, dict[str, Counter[str]]] = {}
    for sample in samples:
        for trace in (trace for trace in sample["traces"] if trace["text"] is not None):
            words, step = words_of(trace["text"]), sample["step"]
            looks.setdefault(step, Counter()).update(words)
            sizes.setdefault(step, []).append((len(words), repetition(words)))
            if trace["kind"] == "greedy":
                greedy.setdefault(step, {})[sample["id"]] = Counter(words)
    steps = evenly(sorted(looks), LOOKS)
    background: Counter[str] = Counter()
    for counts in looks.values():
        background.update(counts)
    if len(steps) < 2 or not background:
        return None
    odds = log_odds(looks[steps[-1]], looks[steps[0]], background)
    order = sorted(odds, key=lambda word: odds[word][1])
    chosen = {"gained": [w for w in order[::-1][:SHOWN] if odds[w][1] > 0],
              "lost": [w for w in order[:SHOWN] if odds[w][1] < 0]}  # fmt: skip
    named = {word for words in chosen.values() for word in words}
    over_time = [log_odds(looks[step], looks[steps[0]], background, named) for step in steps]
    tables = {side: [describe(word, odds[word], [at[word][0] for at in over_time], [looks[s] for s in steps])
                     for word in words] for side, words in chosen.items()}  # fmt: skip
    start = greedy.get(min(greedy, default=0), {})
    alike = [[likeness(start[i], found) for i, found in greedy.get(step, {}).items() if i in start] for step in steps]
    return tables | {
        "steps": steps,
        "traces": [len(sizes[step]) for step in steps],
        "words": [mean(count for count, _ in sizes[step]) for step in steps],
        "repetition": [mean(share for _, share in sizes[step]) for step in steps],
        "likeness": [mean(values) if values else None for values in alike],
    }


def describe(word: str, odds: tuple[float, float], over_time: list[float], looks: list[Counter[str]]) -> dict[str, Any]:
    """A word's row in the table."""
    rates = [round(1000 * look[word] / max(1, sum(look.values())), 1) for look in looks]
    return {
        "word": word[:40],
        "log_odds": round(odds[0], 2),
        "z": round(odds[1], 2),
        "over_time": [round(value, 2) for value in over_time],
        "per_thousand": rates,
    }


def evenly(values: list[int], most: int) -> list[int]:
    """At most so many of the values, the first and the last among them.

    >>> evenly([1, 2, 3, 4, 5], 3), evenly([1, 2], 3)
    ([1, 3, 5], [1, 2])
    """
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def mean(values: Iterable[float]) -> float:
    """A rounded mean."""
    listed = list(values)
    return round(sum(listed) / len(listed), 4)
