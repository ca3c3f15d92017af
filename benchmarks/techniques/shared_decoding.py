"""Rows that share keys and values of their prompt while tokens are sampled, against rows that have copies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from benchmarks.techniques.technique import Technique
from benchmarks.workload import SHAPES, build_policy, prompts
from nrt_lightning.rollouts import TransformersEngine, trace_request, transformers_engine


class SharedDecoding(Technique):
    name: ClassVar[str] = "shared_decoding"
    cases: ClassVar[tuple[str, ...]] = ("prompts of 72 to 88", "prompts of 472 to 488")
    ways: ClassVar[tuple[str, ...]] = ("a copy for each row", "once for each prompt")

    def build(self, case: str, way: str) -> Callable[[], float]:
        if way == self.ways[0]:
            transformers_engine.LEAST_SAVED = sys.maxsize
        work = SHAPES["small"] if case == self.cases[0] else replace(SHAPES["small"], prefix=400)
        policy = build_policy(work)
        request = trace_request(policy, prompts(work, 0), work.sampling, seed=0)

        def rollout() -> float:
            return float(TransformersEngine().generate(policy, request).token_mask.sum())

        return rollout
