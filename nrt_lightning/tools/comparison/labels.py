"""Lines and names in a plot that can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Eight colors that stay apart with color blindness (Okabe and Ito 2008; yellow darkened, so that text is readable).
COLORS = ("#0072b2", "#d55e00", "#008f6b", "#b0578d", "#8a7000", "#3b9bd6", "#22252a", "#b3261e")
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (7, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    dash: Any
    marker: str

    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib's `plot`."""
        return {"color": self.color, "linestyle": self.dash, "linewidth": 1.7}


def looks(count: int) -> list[Look]:
    """So many looks, of which no two are the same up to 32; more repeat.

    >>> len(set(looks(23)))
    23
    """
    kinds = [(at % len(COLORS), at // len(COLORS) % len(DASHES)) for at in range(count)]
    return [Look(COLORS[color], DASHES[dash], MARKERS[dash]) for color, dash in kinds]


def apart(heights: Sequence[float], step: float) -> list[float]:
    """Heights of labels near the given ones, at least `step` from each other, and within 0 and 1 where there is room.

    >>> [round(height, 2) for height in apart([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    blocks: list[tuple[float, list[int]]] = []  # middle, labels from below
    for at in order:
        blocks.append((min(max(heights[at], 0.0), 1.0), [at]))
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < step * (len(blocks[-1][1]) + len(blocks[-2][1])) / 2:
            (upper, more), (lower, fewer) = blocks.pop(), blocks.pop()
            size = len(more) + len(fewer)
            reach = step * (size - 1) / 2
            middle = (upper * len(more) + lower * len(fewer)) / size
            blocks.append((min(max(middle, min(reach, 0.5)), max(1 - reach, 0.5)), fewer + more))
    found = [0.0] * len(heights)
    for middle, labels in blocks:
        for place, at in enumerate(labels):
            found[at] = middle + step * (place - (len(labels) - 1) / 2)
    return found
