"""The in-process engine (`rollouts/transformers_engine.py`) against `generate(num_return_sequences=K)`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from benchmarks.workload import PAD_ID, Workload, build_policy, plain_generate, prompts
from nrt_lightning.rollouts import TransformersEngine, trace_request

PROMPTS = {"80": (72, 77, 83, 88), "256": (240, 250, 262, 272)}


class Rollout(Technique):
    name: ClassVar[str] = "rollout"
    cases: ClassVar[tuple[str, ...]] = (
        "prompts of 80, traces of 64",
        "prompts of 80, traces up to 64",
        "prompts of 256, traces of 64",
        "prompts of 256, traces up to 64",
    )
    ways: ClassVar[tuple[str, ...]] = ("generate", "engine")
    rate: ClassVar[str] = "tokens/s"
    calls: ClassVar[int] = 6

    def build(self, case: str, way: str) -> Callable[[], float]:
        length = case.split(",")[0].split()[-1]
        work = Workload(prompt_tokens=PROMPTS[length], ends_after=32 if "up to" in case else 0)
        policy, batch, seeds = build_policy(work), prompts(work, 0), count()

        def generate() -> float:
            torch.manual_seed(next(seeds))
            ids = plain_generate(policy.network.eval(), batch, work)
            return int((ids[:, batch.prompt_ids.shape[1] :] != PAD_ID).sum())

        def engine() -> float:
            request = trace_request(policy, batch, work.sampling, seed=next(seeds))
            return int(TransformersEngine().generate(policy, request).token_mask.sum())

        return generate if way == "generate" else engine
