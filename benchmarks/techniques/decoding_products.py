"""Linear layers while tokens are sampled (`rollouts/decoding_weights.py`) against those of training."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from benchmarks.workload import SHAPES, build_policy
from nrt_lightning.models import LoRA
from nrt_lightning.models.scoring.base import last_logits
from nrt_lightning.rollouts.decoding_weights import decoding_weights


class DecodingProducts(Technique):
    name: ClassVar[str] = "decoding_products"
    cases: ClassVar[tuple[str, ...]] = ("13 rows, float32", "13 rows, bf16-mixed")
    ways: ClassVar[tuple[str, ...]] = ("as trained", "as sampled")

    def build(self, case: str, way: str) -> Callable[[], float]:
        half = "bf16" in case
        work = dataclasses.replace(SHAPES["135m"], layers=3)
        policy = build_policy(work, dtype=torch.bfloat16 if half else torch.float32, adapter=LoRA(rank=16)).eval()
        inputs = {"input_ids": torch.full((13, 1), 5), "use_cache": False}

        @torch.no_grad()
        def tokens() -> float:
            layers = decoding_weights(policy.network) if way == "as sampled" else contextlib.nullcontext()
            with torch.autocast("cpu", torch.bfloat16, enabled=half), layers:
                for _ in range(32):
                    last_logits(policy.network, inputs)
            return 32

        return tokens
