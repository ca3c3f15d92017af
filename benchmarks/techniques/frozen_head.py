"""Log-probs and gradient under a frozen head: one pass (`functional/frozen_head.py`) against logits made twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from nrt_lightning.functional.linear_logprobs import CHUNK, LinearLogprobs, linear_logprobs
from nrt_lightning.functional.logits import block_rows

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FrozenHead(Technique):
    name: ClassVar[str] = "frozen_head"
    cases: ClassVar[tuple[str, ...]] = tuple(f"922 positions, width 576, vocabulary 49,152, {name}" for name in DTYPES)
    ways: ClassVar[tuple[str, ...]] = ("logits made twice", "one pass")
    calls: ClassVar[int] = 3

    def build(self, case: str, way: str) -> Callable[[], float]:
        torch.manual_seed(0)
        dtype = DTYPES[case.rpartition(" ")[2]]
        weight, ids = torch.randn(49_152, 576).div_(24).to(dtype), torch.randint(49_152, (922,))
        hidden = torch.randn(922, 576).to(dtype).requires_grad_()

        def twice() -> torch.Tensor:
            settings = (CHUNK, block_rows(weight), False, False)
            return LinearLogprobs.apply(hidden, weight, ids, None, None, 0, *settings)[0]

        def forward_and_backward() -> float:
            logprobs = twice() if way == self.ways[0] else linear_logprobs(hidden, weight, ids)[0]
            logprobs.sum().backward()
            hidden.grad = None
            return 1

        return forward_and_backward
