"""Log-probabilities of given tokens, and the entropy of next-token distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional.precision import at_least_float32


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token in `ids` under `logits`: `logits[id] - logsumexp(logits)`.

    Args:
        logits: `[..., V]` the distribution from which each token was drawn (already shifted by one position).
        ids: `[...]` token ids, 0 to V - 1. Padding needs a valid id too; its value is masked later.

    Returns:
        `[...]` in nats, at most 0; float32, or float64 for float64 logits.

    Example:
        >>> token_logprobs(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([2])).exp()
        tensor([0.2500])
    """
    # log_softmax subtracts the maximum first: exact also where logits are large, unlike gather - logsumexp.
    logprobs = torch.log_softmax(at_least_float32(logits), dim=-1)  # [..., V]
    return logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each next-token distribution: `-sum_v p_v log p_v`.

    Args:
        logits: `[..., V]`; minus infinity marks tokens that are ruled out.

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
