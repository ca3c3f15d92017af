"""Sampling of the next token."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional.logits import chunks, rows_in_cache


def sample(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0
) -> tuple[Tensor, Tensor]:
    """Sample one token per row. -> tokens and their log-probs under the sampling distribution, [A] each

    CPUs take a few rows at a time, whose passes over the vocabulary stay in the cache.

    Args:
        logits: of the next token, [A, V].
        uniform: one number in [0, 1) per row, [A].
        temperature: as in `restrict`.
        top_p: as in `restrict`.
        top_k: as in `restrict`.
    """
    found = []
    for some, numbers in chunks(logits, uniform, rows_in_cache(logits)):
        logprobs = restrict(some, temperature, top_p, top_k)  # [a, V]
        tokens = draw(logprobs, numbers)
        found.append((tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)))
    tokens, values = (torch.cat(part) for part in zip(*found, strict=True))
    return tokens, values


def restrict(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """Log-probs of the sampling distribution. [A, V] -> [A, V] float32, -inf for excluded tokens.

    Args:
        logits: of the next token.
        temperature: divides the logits; must be positive.
        top_p: keep the smallest set of most probable tokens with at least this total probability.
        top_k: keep this number of most probable tokens; 0 keeps all.

    >>> restrict(torch.tensor([[0.0, 0.0, -1.0]]), top_k=2).exp()
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    logprobs = scaled.log_softmax(dim=-1)  # [A, V]
    if 0 < top_k < logits.shape[-1]:
        kept, index = logprobs.topk(top_k, dim=-1)  # [A, k]
        logprobs = torch.full_like(logprobs, -torch.inf).scatter(-1, index, kept)
    if top_p < 1.0:
        ordered, index = logprobs.sort(dim=-1, descending=True)  # [A, V]
        probs = ordered.softmax(dim=-1)
        before = probs.cumsum(dim=-1) - probs  # probability of all more probable tokens
        logprobs = logprobs.scatter(-1, index, ordered.masked_fill(before >= top_p, -torch.inf))
    if top_p < 1.0 or 0 < top_k < logits.shape[-1]:
        logprobs = logprobs.log_softmax(dim=-1)
    return logprobs


def draw(logprobs: Tensor, uniform: Tensor) -> Tensor:
    """Sample one token per row by inverting the distribution function, which is faster than `torch.multinomial`.

    Args:
        logprobs: of the sampling distribution, [A, V].
        uniform: one number in [0, 1) per row, [A].

    >>> draw(torch.tensor([[0.25, 0.25, 0.5]]).log(), torch.tensor([0.3]))
    tensor([1])
    """
    cumulative = logprobs.exp().cumsum_(dim=-1)  # [A, V]
    total = cumulative[:, -1]
    # Rounding up to `total` would select a token of probability 0.
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))  # [A]
    tokens = torch.searchsorted(cumulative, point.unsqueeze(-1), right=True).squeeze(-1)  # [A]
    return tokens.clamp_(max=logprobs.shape[-1] - 1)  # beyond the last only for NaN, which the engine reports
