"""A penalty on repetitive traces."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class Repetition(ScoreSignal):
    """-1 if some n-gram of tokens occurs at least `times` times in the trace, else 0. Occurrences may overlap.

    The defaults are RLPR's (arXiv 2506.18254), which subtracts 1 from the reward where a 10-gram occurs 10 times.

    Args:
        n: length of the n-grams.
        times: lowest number of occurrences that is penalized.

    Raises:
        InputError: if `n` is below 1 or `times` below 2.

    Example:
        >>> most_repeated([7, 8, 7, 8, 7], n=2)
        2
    """

    n: int = 10
    times: int = 10
    minimum = -1.0
    needs_answer_logprobs = False

    def __post_init__(self) -> None:
        check_at_least("n", self.n, 1)
        check_at_least("times", self.times, 2)

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        rollouts = evidence.rollouts
        traces = [
            ids[mask].tolist() for ids, mask in zip(rollouts.completion_ids, rollouts.segments.trace_mask, strict=True)
        ]
        repeats = [most_repeated(trace, self.n) >= self.times for trace in traces]
        return -torch.tensor(repeats, dtype=torch.float32, device=rollouts.completion_ids.device)


def most_repeated(tokens: list[int], n: int) -> int:
    """Occurrences of the most frequent n-gram; 0 if there are fewer than n tokens."""
    grams = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    return max(grams.values(), default=0)
