"""Sampling by inverting the distribution function (`rollouts/sampling.py`) against `torch.multinomial`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from nrt_lightning.rollouts.sampling import draw, restrict


class Drawing(Technique):
    name: ClassVar[str] = "drawing"
    cases: ClassVar[tuple[str, ...]] = ("32 x 8,192", "32 x 128,256")
    ways: ClassVar[tuple[str, ...]] = ("multinomial", "inverse")
    calls: ClassVar[int] = 40

    def build(self, case: str, way: str) -> Callable[[], float]:
        rows, vocabulary = (int(size.replace(",", "")) for size in case.split(" x "))
        torch.manual_seed(0)
        logits = torch.randn(rows, vocabulary)

        def multinomial() -> float:
            torch.multinomial(logits.softmax(dim=-1), 1)
            return 1

        def inverse() -> float:
            draw(restrict(logits), torch.rand(rows))
            return 1

        return multinomial if way == "multinomial" else inverse
