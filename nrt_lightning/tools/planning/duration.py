"""How long a step would take on devices of a given speed: a plan measures nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nrt_lightning.tools.planning.sizes import Lengths


@dataclass(frozen=True)
class Speed:
    """What a device achieves, not what its data sheet promises.

    Args:
        tflops: 10^12 floating-point operations a second in matrix products.
        gb: 10^9 bytes a second read from its memory.
    """

    tflops: float
    gb: float


@dataclass(frozen=True)
class Decoding:
    """Tokens that a device writes one after the other in an optimizer step, each of which reads weights and cache."""

    tokens: int
    bytes: int  # read for each, on average

    @classmethod
    def of(cls, rollouts: int, at_once: Lengths, weights: int, cache: int) -> Decoding:
        """Decoding on one device.

        Args:
            rollouts: of an optimizer step.
            at_once: what is sampled at once; there are so many rounds as it takes.
            weights: bytes.
            cache: bytes when all traces are as long as they may be. On average they are half as long.
        """
        share = (at_once.prompt + at_once.trace / 2) / (at_once.prompt + at_once.trace)
        rounds = math.ceil(rollouts / at_once.rollouts)
        return cls(rounds * at_once.trace, round(weights + share * cache))

    def seconds(self, flops: float, speed: Speed) -> float:
        """The longer of computing and reading.

        >>> Decoding(tokens=1000, bytes=2 * 10**9).seconds(flops=10**15, speed=Speed(tflops=500, gb=2000))
        2.0
        >>> Decoding(tokens=3000, bytes=2 * 10**9).seconds(flops=10**15, speed=Speed(tflops=500, gb=2000))
        3.0
        """
        return max(flops / (speed.tflops * 1e12), self.tokens * self.bytes / (speed.gb * 1e9))


def durations(flops: dict[str, float], devices: int, decoding: Decoding | None, speed: Speed) -> dict[str, float]:
    """Seconds of an optimizer step by part, at most. Communication between devices is not counted.

    Args:
        flops: of an optimizer step by part, on all devices together.
        devices: how many share them.
        decoding: of the traces that are sampled in the trainer's processes; None where there are none.
        speed: of each device.
    """
    each = {name: number / devices for name, number in flops.items()}
    rollout = each.pop("rollout", 0.0)
    found = {"rollout": decoding.seconds(rollout, speed)} if decoding else {}
    return found | {"learning": sum(each.values()) / (speed.tflops * 1e12)}
