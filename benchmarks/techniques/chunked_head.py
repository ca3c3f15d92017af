"""The head in chunks (`functional/linear_logprobs.py`) against dense logits and `log_softmax`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from nrt_lightning.functional.linear_logprobs import linear_logprobs


class ChunkedHead(Technique):
    name: ClassVar[str] = "chunked_head"
    cases: ClassVar[tuple[str, ...]] = ("1,024 positions, width 512, vocabulary 131,072",)
    ways: ClassVar[tuple[str, ...]] = ("log_softmax", "chunked")
    calls: ClassVar[int] = 1

    def build(self, case: str, way: str) -> Callable[[], float]:
        positions, width, vocabulary = 1024, 512, 131_072
        torch.manual_seed(0)
        hidden = torch.randn(positions, width, requires_grad=True)
        weight = torch.randn(vocabulary, width).div_(width**0.5).requires_grad_()
        ids = torch.randint(vocabulary, (positions,))

        def dense() -> torch.Tensor:
            return (hidden @ weight.T).log_softmax(dim=-1).gather(-1, ids.unsqueeze(-1))

        def forward_and_backward() -> float:
            logprobs = dense() if way == "log_softmax" else linear_logprobs(hidden, weight, ids)[0]
            logprobs.sum().backward()
            hidden.grad = weight.grad = None
            return 1

        return forward_and_backward
