"""The terms of the loss as pure functions: per-token values and the tokens they are defined on.

Values outside a term's mask are finite whatever the inputs hold there, and their gradient is exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nrt_lightning.functional import KLEstimator, at_least_float32
from nrt_lightning.losses.surrogates import Surrogate
from nrt_lightning.structures import Segments

ForcedMarker = Literal["excluded", "authors"]
FORCED_MARKER_CHOICES = get_args(ForcedMarker)


@dataclass
class TokenTerm:
    """Per-token values of a term, to be reduced over its mask."""

    values: Tensor  # [N, C]
    mask: Tensor  # [N, C] bool


@dataclass
class TraceTerm(TokenTerm):
    """The trace term, with the tokens its clipping silenced."""

    clipped: Tensor  # [N, C] bool


def under(mask: Tensor, values: Tensor) -> Tensor:
    """`values [N, C]` in at least float32 where `mask [N, C]` is True, and 0 (with gradient 0) elsewhere.

    Example:
        >>> under(torch.tensor([[True, False]]), torch.tensor([[-1.0, float("nan")]]))
        tensor([[-1.,  0.]])
    """
    return torch.where(mask, at_least_float32(values), 0)


def sampled_tokens(segments: Segments) -> Tensor:
    """Tokens the policy drew itself, `[N, C]` bool: the trace, and the marker of the rows that emitted it."""
    return segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))


def trace_tokens(segments: Segments, forced_marker: ForcedMarker = "excluded") -> Tensor:
    """Tokens that carry the advantage of their trace, `[N, C]` bool.

    Args:
        segments: N rollouts.
        forced_marker: "excluded" takes the sampled tokens; "authors" takes the markers of all rows.
    """
    if forced_marker == "authors":
        return segments.trace_mask | segments.marker_mask
    return sampled_tokens(segments)


def forced_marker_tokens(segments: Segments) -> Tensor:
    """Markers the policy did not write itself, `[N, C]` bool."""
    return segments.marker_mask & ~segments.marker_emitted.unsqueeze(1)


def trace_term(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    surrogate: Surrogate,
    importance: Tensor | None = None,
) -> TraceTerm:
    """The policy gradient of the trace: `surrogate(logprobs, old_logprobs, A)` on the trace's tokens.

    Args:
        logprobs: `[N, C]` of the policy.
        old_logprobs: `[N, C]` of the old policy.
        advantages: `[N]` one for each trace.
        mask: `[N, C]` bool, from `trace_tokens`.
        surrogate: the per-token loss.
        importance: `[N, C]` weight of each token, not negative, from `TruncatedImportance`; None weighs all alike.

    Returns:
        Values, the mask (without the clipped tokens if the surrogate drops them) and the clipped tokens.

    Example:
        >>> from nrt_lightning.losses import CISPO
        >>> logprobs, mask = torch.tensor([[-0.5, -0.25]]), torch.tensor([[True, True]])
        >>> trace_term(logprobs, logprobs, torch.tensor([2.0]), mask, CISPO()).values
        tensor([[1.0000, 0.5000]])
    """
    kept = under(mask, logprobs)  # [N, C]
    weights = under(mask, advantages.detach().unsqueeze(1).expand_as(mask))  # [N, C]
    weights = weights if importance is None else weights * under(mask, importance)
    output = surrogate(kept, under(mask, old_logprobs), weights)
    clipped = output.clipped & mask
    return TraceTerm(output.loss, mask & ~clipped if surrogate.drops_clipped else mask, clipped)


def marker_term(logprobs: Tensor, mask: Tensor) -> TokenTerm:
    """Cross-entropy of the markers that had to be forced: `-logprobs`, in nats.

    Args:
        logprobs: `[N, C]` of the policy.
        mask: `[N, C]` bool, from `forced_marker_tokens`.

    Returns:
        Values and mask.

    Example:
        >>> marker_term(torch.tensor([[-3.0, -0.5]]), torch.tensor([[False, True]])).values
        tensor([[0.0000, 0.5000]])
    """
    return TokenTerm(under(mask, -logprobs), mask)


def answer_term(logprobs: Tensor, token_weights: Tensor, mask: Tensor) -> TokenTerm:
    """Weighted cross-entropy of the answer: `-token_weights * logprobs`.

    Args:
        logprobs: `[N, C]` of the policy.
        token_weights: `[N, C]`; no gradient flows into them.
        mask: `[N, C]` bool, the answer's tokens.

    Returns:
        Values and mask.

    Example:
        >>> answer_term(torch.tensor([[-3.0, -0.5]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[True, True]])).values
        tensor([[3., 1.]])
    """
    return TokenTerm(under(mask, token_weights.detach()) * under(mask, -logprobs), mask)


def kl_term(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, estimator: KLEstimator) -> TokenTerm:
    """KL of the policy against the reference, in nats, estimated on sampled tokens.

    Args:
        logprobs: `[N, C]` of the policy.
        ref_logprobs: `[N, C]` of the reference; no gradient flows into them.
        mask: `[N, C]` bool, from `sampled_tokens`: the estimators need tokens drawn from the policy.
        estimator: `K1`, `K2` or `K3`.

    Returns:
        Values and mask.

    Example:
        >>> from nrt_lightning.functional import K1
        >>> kl_term(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]), torch.tensor([[True]]), K1()).values
        tensor([[0.5000]])
    """
    return TokenTerm(estimator(under(mask, logprobs), under(mask, ref_logprobs.detach())), mask)
