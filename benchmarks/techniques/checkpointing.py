"""One prompt per group under activation checkpointing, where every layer is computed again (`packed_groups.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from benchmarks.techniques.technique import Technique, scoring
from benchmarks.workload import Workload, build_policy, fixed_rollouts
from nrt_lightning.models import PackedGroups, PromptCopies, PromptTree, ScoringForward

# The lengths of nrt:experiments/llama31_8b_tulu3_nrt_ws by 1/8.
WORK = Workload(prompt_tokens=(96, 128), answer_tokens=(48, 64), trace_tokens=256, ends_after=128)
FORWARDS: dict[str, ScoringForward] = {"copies": PromptCopies(), "tree": PromptTree(), "packed": PackedGroups()}


class Checkpointing(Technique):
    name: ClassVar[str] = "checkpointing"
    cases: ClassVar[tuple[str, ...]] = ("activation checkpointing", "without")
    ways: ClassVar[tuple[str, ...]] = tuple(FORWARDS)

    def build(self, case: str, way: str) -> Callable[[], float]:
        policy = build_policy(WORK, scoring=FORWARDS[way], activation_checkpointing=case != "without").train()
        return scoring(policy, fixed_rollouts(WORK))
