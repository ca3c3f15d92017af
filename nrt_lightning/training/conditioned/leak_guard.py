"""How much of a trace is copied from the answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from nrt_lightning.functional import check_at_least, check_fraction


@dataclass(frozen=True)
class LeakGuard:
    """Measures how often traces that saw the answer merely copy it.

    A trace copies the answer if at least `limit` of its tokens lie in n-grams that the answer has too. A trace that
    leads to the answer often ends with it: that alone is no copy.

    Args:
        n: length of the n-grams, in tokens; for shorter answers their length.
        limit: fraction of the trace's tokens from which on it is a copy.
        refuse: leave copies out of their group and of the loss.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> LeakGuard(n=2).copied([7, 8, 9, 1], [8, 9, 5])
        0.5
        >>> LeakGuard.contains([7, 8, 9, 1], [8, 9])
        True
    """

    n: int = 3
    limit: float = 0.8
    refuse: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_at_least("answer_conditioned.leak_guard.n", self.n, 1)
        check_fraction("answer_conditioned.leak_guard.limit", self.limit)

    def copied(self, trace: list[int], answer: list[int]) -> float:
        """The fraction of the trace's tokens that lie in n-grams of the answer."""
        n = min(self.n, len(answer))
        if not n or not trace:
            return 0.0
        grams = {tuple(answer[i : i + n]) for i in range(len(answer) - n + 1)}
        covered: set[int] = set()
        for start in range(len(trace) - n + 1):
            if tuple(trace[start : start + n]) in grams:
                covered.update(range(start, start + n))
        return len(covered) / len(trace)

    @staticmethod
    def contains(trace: list[int], answer: list[int]) -> bool:
        """True if the trace holds all tokens of the answer side by side."""
        n = len(answer)
        return bool(n) and any(trace[i : i + n] == answer for i in range(len(trace) - n + 1))
