"""Randomness by counter: a draw depends on the seed and on where in the run it happens, on nothing else.

A run that is stopped and resumed therefore draws what the uninterrupted run would have drawn, with no generator state
to store, and ranks draw different numbers.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


def counter_seed(seed: int, epoch: int, micro_batch: int, rank: int = 0, stream: str = "") -> int:
    """A seed for one place of a run, a 63-bit integer.

    Args:
        seed: the run's seed.
        epoch: the epoch, from 0.
        micro_batch: the micro-batch within the epoch, from 0.
        rank: the process.
        stream: a name for what is drawn, so that two uses at one place are independent.

    >>> counter_seed(0, 0, 3, stream="rollout") == counter_seed(0, 0, 3, stream="rollout")
    True
    >>> len({counter_seed(0, epoch, step, rank) for epoch in range(3) for step in range(3) for rank in range(3)})
    27
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{micro_batch}/{rank}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def run_seed() -> int:
    """The run's seed: the one given to Lightning's `seed_everything` (the CLI has an option of that name), or 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


@contextmanager
def drawn(stream: str) -> Iterator[None]:
    """Inside, torch draws what the run's seed gives a stream; afterwards it goes on as if nothing had been drawn.

    >>> with drawn("weights"):
    ...     first = torch.rand(2)
    >>> with drawn("weights"):
    ...     bool((torch.rand(2) == first).all())
    True
    """
    with torch.random.fork_rng():
        torch.manual_seed(counter_seed(run_seed(), 0, 0, stream=stream))
        yield
