"""A batch in micro-batches under a token budget (`training/micro_batches.py`) against the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from benchmarks.techniques.technique import Technique
from benchmarks.workload import MARKER, Workload, build_model, build_tokenizer, fixed_rollouts
from nrt_lightning import NRTModule, Policy
from nrt_lightning.models import BestScoring, PromptCopies, ScoringForward
from nrt_lightning.training.micro_batches import learn_at_once, learn_in_parts, split

WORK = Workload(trace_tokens=256, ends_after=96)
SCORING: dict[str, ScoringForward] = {"packed groups": BestScoring(), "copies": PromptCopies()}


class Untrained(NRTModule):
    """Computes gradients without a trainer."""

    def backward_part(self, loss: Tensor) -> None:
        """Call `backward` directly."""
        loss.backward()


class TokenBudget(Technique):
    name: ClassVar[str] = "token_budget"
    cases: ClassVar[tuple[str, ...]] = tuple(SCORING)
    ways: ClassVar[tuple[str, ...]] = ("at once", "1,024 tokens", "512 tokens")
    calls: ClassVar[int] = 3

    def build(self, case: str, way: str) -> Callable[[], float]:
        policy = Policy.wrap(build_model(WORK), build_tokenizer(WORK.vocabulary), MARKER, scoring=SCORING[case])
        module, rollouts = Untrained(policy, sampling=WORK.sampling), fixed_rollouts(WORK)
        parts = [] if way == "at once" else split(rollouts, int(way.split()[0].replace(",", "")), lambda count: count)

        def learn() -> float:
            step = learn_in_parts(module, rollouts, parts) if parts else learn_at_once(module, rollouts)
            step.loss.backward()
            policy.zero_grad()
            return 1

        return learn
