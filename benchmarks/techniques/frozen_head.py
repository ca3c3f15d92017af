"""The hidden states' gradient of a frozen 16-bit head (`functional/products.py`) against float32 products."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from nrt_lightning.functional.products import product, rounded_product


class FrozenHead(Technique):
    name: ClassVar[str] = "frozen_head"
    cases: ClassVar[tuple[str, ...]] = ("512 positions, width 640, vocabulary 65,536",)
    ways: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    calls: ClassVar[int] = 3

    def build(self, case: str, way: str) -> Callable[[], float]:
        torch.manual_seed(0)
        slope, weight = torch.randn(512, 65_536), torch.randn(65_536, 640).bfloat16()
        multiply = product if way == "float32" else rounded_product

        def gradient() -> float:
            multiply(slope, weight)
            return 1

        return gradient
