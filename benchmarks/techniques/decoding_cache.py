"""Keys, values and masks while tokens are sampled (`rollouts/growing_cache.py`) against those of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from transformers import DynamicCache

from benchmarks.techniques.technique import Technique
from benchmarks.workload import Workload, build_policy
from nrt_lightning.rollouts.decoding import GrowingDecoder, forward
from nrt_lightning.rollouts.growing_cache import decoding_cache

ROWS, PROMPT, TOKENS = 32, 128, 64


class DecodingCache(Technique):
    name: ClassVar[str] = "decoding_cache"
    cases: ClassVar[tuple[str, ...]] = ("float32", "bf16-mixed")
    ways: ClassVar[tuple[str, ...]] = ("transformers' cache, a mask for each layer", "grows in place, one mask")

    def build(self, case: str, way: str) -> Callable[[], float]:
        model, own = build_policy(Workload()).network.eval(), way == self.ways[-1]
        ids = torch.full((ROWS, PROMPT), 5)
        mask, next_ids = torch.ones_like(ids), ids[:, 0]

        @torch.no_grad()
        def tokens() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=case == "bf16-mixed"):
                cache = decoding_cache(model.config) if own else DynamicCache(config=model.config)
                forward(model, ids, mask, mask.cumsum(dim=1) - 1, cache)
                decoder = GrowingDecoder(model, cache, mask.bool(), additive=own)
                for _ in range(TOKENS):
                    decoder.step(next_ids)
            return TOKENS

        return tokens
