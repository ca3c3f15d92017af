"""Masks made additive once for all layers (`Seen` in `models/scoring/layout.py`) against boolean masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F

from benchmarks.techniques.technique import Technique
from nrt_lightning.models.scoring.layout import Seen

LAYERS, ROWS, HEADS, QUERIES, KEYS, SIZE = 8, 8, 4, 256, 512, 64


class Masks(Technique):
    name: ClassVar[str] = "masks"
    cases: ClassVar[tuple[str, ...]] = (f"{LAYERS} layers, {ROWS} rows of {QUERIES} queries and {KEYS} keys",)
    ways: ClassVar[tuple[str, ...]] = ("boolean", "additive, made once")

    def build(self, case: str, way: str) -> Callable[[], float]:
        torch.manual_seed(0)
        query = torch.randn(ROWS, HEADS, QUERIES, SIZE, requires_grad=True)
        key, value = torch.randn(2, ROWS, HEADS, KEYS, SIZE)
        sees = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(KEYS - QUERIES).expand(ROWS, 1, -1, -1)

        def forward_and_backward() -> float:
            mask, x = (sees if way == self.ways[0] else Seen(sees).additive(query.dtype)), query
            for _ in range(LAYERS):
                x = F.scaled_dot_product_attention(x, key, value, mask)
            x.sum().backward()
            return 1

        return forward_and_backward
