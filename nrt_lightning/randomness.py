"""Counter-based random numbers: functions of the run's seed and a position in the run, without generator state.

A resumed run therefore samples what an uninterrupted one would have sampled, and a row gets the same numbers on any
number of processes.
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


def counter_seed(seed: int, series: int, number: int, rank: int = 0, stream: str = "") -> int:
    """Derive a seed, a 63-bit integer, for a position in a run.

    Args:
        seed: the run's seed.
        series: separates counters of the same stream; 0 if there is one.
        number: the position, from 0: in training the micro-batches before this one, over all epochs.
        rank: the rank of the process.
        stream: name of the purpose; different streams are independent at the same position.

    >>> counter_seed(0, 0, 3, stream="rollout") == counter_seed(0, 0, 3, stream="rollout")
    True
    >>> len({counter_seed(0, series, number, rank) for series in range(3) for number in range(3) for rank in range(3)})
    27
    """
    digest = hashlib.blake2b(f"{seed}/{series}/{number}/{rank}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def run_seed() -> int:
    """The run's seed, set by Lightning's `seed_everything` or the command-line option of that name; 0 if not set."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


@contextmanager
def forked_rng(stream: str) -> Iterator[None]:
    """Fork torch's random generators, seeded by the run's seed and `stream`; restore them on exit.

    >>> with forked_rng("weights"):
    ...     first = torch.rand(2)
    >>> with forked_rng("weights"):
    ...     bool((torch.rand(2) == first).all())
    True
    """
    with torch.random.fork_rng():
        torch.manual_seed(counter_seed(run_seed(), 0, 0, stream=stream))
        yield


def row_keys(seed: int, names: list[str]) -> list[int]:
    """A key for each row of a batch, derived from the seed and the row's name.

    Rows of the same name get different keys, by their order.

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
    """Uniform random numbers in [0, 1) for each key, the same on every device. [N] int64 -> [count, N] float32

    Number i of a key is the 24 highest bits of `hash(key + i * gamma)`: the generator splitmix64 (Steele et al. 2014).

    >>> uniforms(torch.tensor([3, 5]), 2).shape
    torch.Size([2, 2])
    """
    steps = torch.arange(1, count + 1, device=keys.device).unsqueeze(1)  # [count, 1]
    return (hashed(keys + steps * GAMMA) >> 40 & 0xFFFFFF).float() / 2**24


def hashed(values: Tensor) -> Tensor:
    """The finalizer of splitmix64: every bit of the result depends on every bit of the value. int64 -> int64"""
    for shift, factor in zip((30, 27), FACTORS, strict=True):
        values = (values ^ logical_shift(values, shift)) * factor
    return values ^ logical_shift(values, 31)


def logical_shift(values: Tensor, by: int) -> Tensor:
    """Right shift that fills with zeros; `>>` would repeat the sign. int64 -> int64"""
    return (values >> by) & ((1 << (64 - by)) - 1)
