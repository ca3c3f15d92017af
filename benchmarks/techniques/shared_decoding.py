"""Rows that share keys and values of their prompt while tokens are sampled, against rows that have copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

from benchmarks.techniques.technique import Technique
from benchmarks.workload import EOS_ID, MARKER_ID, SHAPES, build_policy, prompts
from nrt_lightning.rollouts import GenerationRequest, TransformersEngine, transformers_engine


class SharedDecoding(Technique):
    name: ClassVar[str] = "shared_decoding"
    cases: ClassVar[tuple[str, ...]] = ("prompts of 72 to 88", "prompts of 472 to 488")
    ways: ClassVar[tuple[str, ...]] = ("a copy for each row", "once for each prompt")

    def build(self, case: str, way: str) -> Callable[[], float]:
        work = SHAPES["small"] if case == self.cases[0] else replace(SHAPES["small"], prefix=400)
        policy, batch = build_policy(work), prompts(work, 0)
        request = GenerationRequest(
            batch.prompt_ids, batch.prompt_mask, work.trace_tokens, [MARKER_ID, EOS_ID], group_size=work.group_size
        )
        refuse = patch.object(transformers_engine, "shares_prompts", lambda *_: False)

        def rollout() -> float:
            if way == self.ways[1]:
                return float(TransformersEngine().generate(policy, request).token_mask.sum())
            with refuse:
                return float(TransformersEngine().generate(policy, request).token_mask.sum())

        return rollout
