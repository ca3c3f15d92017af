"""Inputs of the loss with random numbers."""

from __future__ import annotations

import dataclasses

import torch

from nrt_lightning.losses import LossInputs, NRTLoss
from nrt_lightning.structures import LossOutput, Segments


def gradient(batch: LossInputs, loss: NRTLoss) -> tuple[LossOutput, torch.Tensor]:
    """The loss, and its gradient with respect to the log-probs."""
    leaf = batch.logprobs.detach().requires_grad_()
    out = loss(dataclasses.replace(batch, logprobs=leaf))
    (grad,) = torch.autograd.grad(out.loss, leaf)
    return out, grad


def make(lengths: list[tuple[int, int, int]], emitted: list[bool], seed: int = 0, padding: int = 1) -> LossInputs:
    """Rows of (trace, marker, answer) tokens, with random numbers everywhere."""
    width = max(map(sum, lengths)) + padding
    n, generator = len(lengths), torch.Generator().manual_seed(seed)
    column = torch.arange(width)
    ends = torch.tensor(lengths).cumsum(1).unsqueeze(2)  # [N, 3, 1]
    trace, to_marker, to_answer = (column < ends).unbind(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logprobs = -random(n, width).abs()
    return LossInputs(
        logprobs=logprobs,
        old_logprobs=logprobs + 0.3 * random(n, width),
        segments=Segments(trace, to_marker & ~trace, to_answer & ~to_marker, torch.tensor(emitted)),
        advantages=random(n),
        token_weights=random(n, width).abs(),
        ref_logprobs=logprobs + 0.5 * random(n, width),
    )
