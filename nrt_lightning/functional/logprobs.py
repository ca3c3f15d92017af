"""Log-probabilities of tokens and entropy of next-token distributions, from logits."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional.precision import at_least_float32


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Compute the log-probability of each token: `logits[id] - logsumexp(logits)`.

    Args:
        logits: `[..., V]`, already shifted: those at each position predict the id at that position.
        ids: `[...]` token ids, 0 to V - 1; padding needs a valid id too.

    Returns:
        `[...]` in nats, at most 0; float32, or float64 for float64 logits.

    Example:
        >>> token_logprobs(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([2])).exp()
        tensor([0.2500])
    """
    # log_softmax subtracts the maximum first and is exact for large logits, unlike gather - logsumexp.
    logprobs = torch.log_softmax(at_least_float32(logits), dim=-1)  # [..., V]
    return logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """Compute the entropy of each next-token distribution: `-sum_v p_v log p_v`.

    Args:
        logits: `[..., V]`; minus infinity for impossible tokens.

    Returns:
        `[...]` in nats, 0 to log V; float32, or float64 for float64 logits.

    Example:
        >>> entropy(torch.tensor([[0.0, 0.0, float("-inf"), float("-inf")]]))
        tensor([0.6931])
    """
    logprobs = torch.log_softmax(at_least_float32(logits), dim=-1)  # [..., V]
    # 0 * -inf would be NaN, and so would its gradient.
    finite = logprobs.masked_fill(logprobs == float("-inf"), 0.0)
    return -(logprobs.exp() * finite).sum(-1)
