"""The arguments of a loss, made up at random."""

from __future__ import annotations

import dataclasses

import torch

from nrt_lightning.losses import NRTLoss
from nrt_lightning.structures import LossOutput, Segments


@dataclasses.dataclass
class Batch:
    """The arguments of a loss."""

    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    segments: Segments
    advantages: torch.Tensor
    token_weights: torch.Tensor
    ref_logprobs: torch.Tensor

    def __call__(self, loss: NRTLoss, reference: bool = True) -> LossOutput:
        arguments = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return loss(**arguments | ({} if reference else {"ref_logprobs": None}))

    def select(self, rows) -> Batch:
        return Batch(**{f.name: pick(getattr(self, f.name), rows) for f in dataclasses.fields(self)})

    def gradient(self, loss: NRTLoss) -> tuple[LossOutput, torch.Tensor]:
        leaf = self.logprobs.detach().requires_grad_()
        out = dataclasses.replace(self, logprobs=leaf)(loss)
        (grad,) = torch.autograd.grad(out.loss, leaf)
        return out, grad


def pick(value, rows):
    return value.apply(lambda t: t[rows]) if isinstance(value, Segments) else value[rows]


def make(lengths: list[tuple[int, int, int]], emitted: list[bool], seed: int = 0, padding: int = 1) -> Batch:
    """Rows of (trace, marker, answer) tokens, with random numbers everywhere."""
    width = max(map(sum, lengths)) + padding
    n, generator = len(lengths), torch.Generator().manual_seed(seed)
    column = torch.arange(width)
    ends = torch.tensor(lengths).cumsum(1).unsqueeze(2)  # [N, 3, 1]
    trace, to_marker, to_answer = (column < ends).unbind(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logprobs = -random(n, width).abs()
    return Batch(
        logprobs,
        logprobs + 0.3 * random(n, width),
        Segments(trace, to_marker & ~trace, to_answer & ~to_marker, torch.tensor(emitted)),
        random(n),
        random(n, width).abs(),
        logprobs + 0.5 * random(n, width),
    )
