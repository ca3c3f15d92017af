"""Reward, baseline and loss from one forward pass (`modules/nrt.py`) against scoring before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from benchmarks.techniques.technique import Technique
from benchmarks.workload import Workload, build_policy, fixed_rollouts


class OnePass(Technique):
    name: ClassVar[str] = "one_pass"
    cases: ClassVar[tuple[str, ...]] = ("the step's workload",)
    ways: ClassVar[tuple[str, ...]] = ("two passes", "one pass")

    def build(self, case: str, way: str) -> Callable[[], float]:
        work = Workload()
        policy, rollouts = build_policy(work), fixed_rollouts(work)

        def score_and_learn() -> float:
            if way == "two passes":
                with policy.evaluating():
                    policy.score(rollouts, baseline=True)
            policy.score(rollouts, baseline=way == "one pass").logprobs.sum().backward()
            policy.zero_grad()
            return 1

        return score_and_learn
