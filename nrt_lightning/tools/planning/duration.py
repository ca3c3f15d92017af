"""Duration of a step on devices of a given speed. Nothing is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nrt_lightning.tools.planning.sizes import Lengths


@dataclass(frozen=True)
class Speed:
    """Speed that a device achieves, which is below its data sheet's.

    Args:
        tflops: 10^12 floating-point operations per second in matrix products.
        gb: 10^9 bytes per second read from its memory.
    """

    tflops: float
    gb: float


@dataclass(frozen=True)
class Decoding:
    """Sequential decoding steps of a device in an optimizer step; each reads weights and cache."""

    tokens: int
    bytes: int  # read per token, on average

    @classmethod
    def of(cls, rollouts: int, at_once: Lengths, weights: int, cache: int) -> Decoding:
        """Decoding on one device.

        Args:
            rollouts: of an optimizer step.
            at_once: what is sampled at once; the rollouts are sampled in as many rounds as necessary.
            weights: bytes.
            cache: bytes at the largest trace length; on average, traces have half of it.
        """
        fraction = (at_once.prompt + at_once.trace / 2) / (at_once.prompt + at_once.trace)
        rounds = math.ceil(rollouts / at_once.rollouts)
        return cls(rounds * at_once.trace, round(weights + fraction * cache))

    def seconds(self, flops: float, speed: Speed) -> float:
        """The larger of compute time and memory time.

        >>> Decoding(tokens=1000, bytes=2 * 10**9).seconds(flops=10**15, speed=Speed(tflops=500, gb=2000))
        2.0
        >>> Decoding(tokens=3000, bytes=2 * 10**9).seconds(flops=10**15, speed=Speed(tflops=500, gb=2000))
        3.0
        """
        return max(flops / (speed.tflops * 1e12), self.tokens * self.bytes / (speed.gb * 1e9))


def durations(flops: dict[str, float], devices: int, decoding: Decoding | None, speed: Speed) -> dict[str, float]:
    """Upper bounds in seconds of the parts of an optimizer step, without communication.

    Args:
        flops: of an optimizer step by part, summed over devices.
        devices: number of devices.
        decoding: of the traces that are sampled in the trainer's processes; None if there are none.
        speed: of each device.
    """
    each = {name: number / devices for name, number in flops.items()}
    rollout = each.pop("rollout", 0.0)
    found = {"rollout": decoding.seconds(rollout, speed)} if decoding else {}
    return found | {"learning": sum(each.values()) / (speed.tflops * 1e12)}
