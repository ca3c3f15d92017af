"""Base class of technique benchmarks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from nrt_lightning.models import Policy
from nrt_lightning.structures import Rollouts


class Technique(ABC):
    """Ways to compute the same thing, measured in several cases.

    `ways` are their names, the plain way first and the package's last. `rate` is the unit of a call's return value, for
    techniques that are compared by a rate instead of seconds.
    """

    name: ClassVar[str]
    cases: ClassVar[tuple[str, ...]]
    ways: ClassVar[tuple[str, ...]]
    rate: ClassVar[str] = ""
    calls: ClassVar[int] = 5  # timed in each process, after a warm-up call

    @abstractmethod
    def build(self, case: str, way: str) -> Callable[[], float]:
        """Build the function to time, which returns its amount of work, or 1 if that is constant."""


def scoring(policy: Policy, rollouts: Rollouts) -> Callable[[], float]:
    """The function to time that scores rollouts, with the gradient of all log-probs."""

    def forward_and_backward() -> float:
        policy.score(rollouts).logprobs.sum().backward()
        policy.zero_grad()
        return 1

    return forward_and_backward
