"""Instructions that all prompts begin with: read once (`models/scoring/layout.py`) against once for each prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique, scoring
from benchmarks.workload import Workload, build_policy, fixed_rollouts
from nrt_lightning.models.scoring import layout
from nrt_lightning.rollouts import prefill
from nrt_lightning.rollouts.growing_cache import decoding_cache

WORK = Workload(prompt_tokens=(20, 33, 47, 60) * 2, answer_tokens=(2, 4, 6, 8) * 2, prefix=100)


class Instructions(Technique):
    name: ClassVar[str] = "instructions"
    cases: ClassVar[tuple[str, ...]] = ("scoring", "prefill")
    ways: ClassVar[tuple[str, ...]] = ("for each prompt", "once")

    def build(self, case: str, way: str) -> Callable[[], float]:
        if way == self.ways[0]:
            layout.LEAST = prefill.LEAST = 10**9
        policy, rollouts = build_policy(WORK), fixed_rollouts(WORK)
        model = policy.network

        @torch.no_grad()
        def filled() -> float:
            prefill.prefill(model, rollouts.prompt_ids, rollouts.prompt_mask, decoding_cache(model.config))
            return 1

        return scoring(policy, rollouts) if case == "scoring" else filled
