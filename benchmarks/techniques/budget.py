"""A batch in micro-batches under a token budget (`training/micro_batches.py`) against the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from benchmarks.workload import Workload, build_policy, fixed_rollouts, prompts
from nrt_lightning.models import BestScoring, PromptCopies, ScoringForward
from nrt_lightning.strategies import Processes
from nrt_lightning.training.method import Method
from nrt_lightning.training.micro_batches import learn_at_once, learn_in_parts, split

WORK = Workload(trace_tokens=256, ends_after=96)
SCORING: dict[str, ScoringForward] = {"packed groups": BestScoring(), "copies": PromptCopies()}


class TokenBudget(Technique):
    name: ClassVar[str] = "token_budget"
    cases: ClassVar[tuple[str, ...]] = tuple(SCORING)
    ways: ClassVar[tuple[str, ...]] = ("at once", "1,024 tokens", "512 tokens")
    calls: ClassVar[int] = 3

    def build(self, case: str, way: str) -> Callable[[], float]:
        policy = build_policy(WORK, scoring=SCORING[case])
        method, batch, alone = Method(policy, sampling=WORK.sampling), prompts(WORK, 0), Processes()
        batch.rollouts = fixed_rollouts(WORK)
        parts = [] if way == "at once" else split(batch, int(way.split()[0].replace(",", "")), alone)

        def learn() -> float:
            if parts:
                step = learn_in_parts(method, batch, parts, alone, backward=torch.Tensor.backward)
            else:
                step = learn_at_once(method, batch, alone)
            step.loss.backward()
            policy.zero_grad()
            return 1

        return learn
