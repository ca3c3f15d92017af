"""One prompt per group (`models/scoring/{shared_prompt,prompt_tree,packed_groups}.py`) against one per trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from benchmarks.techniques.technique import Technique, scoring
from benchmarks.workload import Workload, build_policy, fixed_rollouts
from nrt_lightning.models import PackedGroups, PromptCopies, PromptTree, ScoringForward, SharedPrompt

STEP = "the step's workload, uneven lengths"
FORWARDS: dict[str, ScoringForward] = {
    "copies": PromptCopies(),
    "tree": PromptTree(),
    "shared": SharedPrompt(),
    "packed": PackedGroups(),
}


class PrefixSharing(Technique):
    name: ClassVar[str] = "prefix_sharing"
    cases: ClassVar[tuple[str, ...]] = ("prompt 256, completion 128, K 8", STEP)
    ways: ClassVar[tuple[str, ...]] = tuple(FORWARDS)

    def build(self, case: str, way: str) -> Callable[[], float]:
        work = Workload()
        if case != STEP:
            prompt = int(case.split(",")[0].split()[1])
            work = Workload(prompt_tokens=(prompt,) * 2, answer_tokens=(64,) * 2, trace_tokens=63, ends_after=0)
        return scoring(build_policy(work, scoring=FORWARDS[way]), fixed_rollouts(work))
