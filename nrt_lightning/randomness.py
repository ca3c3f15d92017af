"""Randomness by counter: a draw depends on the seed and on where in the run it happens, on nothing else.

A run that is stopped and resumed therefore draws what the uninterrupted run would have drawn, with no generator state
to store. What is drawn for a row follows from the row, so that it is the same on however many processes.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch
from torch import Tensor

GAMMA = -0x61C8864680B583EB  # 2**64 / golden ratio, the step of splitmix64
FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # of splitmix64, as signed integers


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


def row_keys(seed: int, names: list[str]) -> list[int]:
    """A key for each row of a batch, that follows from the seed and the row's name and not from its place.

    Rows of one name get different keys, in their order.

    >>> first, again, other = row_keys(0, ["a", "a", "b"])
    >>> row_keys(0, ["b", "a"]) == [other, first], first != again
    (True, True)
    """
    seen: dict[str, int] = {}
    keys = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        keys.append(counter_seed(seed, 0, seen[name], stream=name))
    return keys


def uniforms(keys: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each key, the same on every device. [N] int64 -> [count, N] float32

    Number i of a key is `hash(key + i * gamma)`, the generator splitmix64 (Steele et al. 2014), whose 24 highest bits
    are kept.

    >>> uniforms(torch.tensor([3, 5]), 2).shape
    torch.Size([2, 2])
    """
    steps = torch.arange(1, count + 1, device=keys.device).unsqueeze(1)  # [count, 1]
    return (hashed(keys + steps * GAMMA) >> 40 & 0xFFFFFF).float() / 2**24


def hashed(values: Tensor) -> Tensor:
    """The finalizer of splitmix64: integers whose every bit depends on every bit of the value. int64 -> int64"""
    for shift, factor in zip((30, 27), FACTORS, strict=True):
        values = (values ^ logical_shift(values, shift)) * factor
    return values ^ logical_shift(values, 31)


def logical_shift(values: Tensor, by: int) -> Tensor:
    """Shift to the right with zeros from the left; `>>` would repeat the sign. int64 -> int64"""
    return (values >> by) & ((1 << (64 - by)) - 1)
