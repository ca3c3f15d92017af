"""The terms of the loss as pure functions that return per-token values with their mask.

Outside the mask the values are 0 and so is the gradient, even if the inputs are NaN there.
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
    """Per-token values of a term, and the mask to reduce them over."""

    values: Tensor  # [N, C]
    mask: Tensor  # [N, C] bool


@dataclass
class TraceTerm(TokenTerm):
    """The trace term, with the tokens that its surrogate clips."""

    clipped: Tensor  # [N, C] bool


def under(mask: Tensor, values: Tensor) -> Tensor:
    """Convert values to at least float32 and set them, and their gradient, to 0 outside the mask. `[N, C]`

    Example:
        >>> under(torch.tensor([[True, False]]), torch.tensor([[-1.0, float("nan")]]))
        tensor([[-1.,  0.]])
    """
    return torch.where(mask, at_least_float32(values), 0)


def sampled_tokens(segments: Segments) -> Tensor:
    """The tokens sampled from the policy: traces, and markers that were emitted. `[N, C]` bool"""
    return segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))


def trace_tokens(segments: Segments, forced_marker: ForcedMarker = "excluded") -> Tensor:
    """The tokens of the trace term. `[N, C]` bool

    Args:
        segments: N rollouts.
        forced_marker: "excluded" for the sampled tokens only, "authors" to include forced markers.
    """
    if forced_marker == "authors":
        return segments.trace_mask | segments.marker_mask
    return sampled_tokens(segments)


def forced_marker_tokens(segments: Segments) -> Tensor:
    """The markers that were forced. `[N, C]` bool"""
    return segments.marker_mask & ~segments.marker_emitted.unsqueeze(1)


def trace_term(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    surrogate: Surrogate,
    importance: Tensor | None = None,
) -> TraceTerm:
    """Policy-gradient loss of the trace tokens: `surrogate(logprobs, old_logprobs, importance * advantages)`.

    Args:
        logprobs: `[N, C]` of the policy.
        old_logprobs: `[N, C]` of the old policy.
        advantages: `[N]` one per trace, or `[N, C]` one per token.
        mask: `[N, C]` bool, from `trace_tokens`.
        surrogate: the per-token loss.
        importance: `[N, C]` weights from a `SamplerCorrection`, at least 0; None for 1.

    Returns:
        Values, mask (without clipped tokens if the surrogate drops them) and clipped tokens.

    Example:
        >>> from nrt_lightning.losses import CISPO
        >>> logprobs, mask = torch.tensor([[-0.5, -0.25]]), torch.tensor([[True, True]])
        >>> trace_term(logprobs, logprobs, torch.tensor([2.0]), mask, CISPO()).values
        tensor([[1.0000, 0.5000]])
    """
    kept = under(mask, logprobs)  # [N, C]
    per_token = advantages if advantages.dim() == 2 else advantages.unsqueeze(1)  # [N, C] or [N, 1]
    weights = under(mask, per_token.detach())  # [N, C]
    weights = weights if importance is None else weights * under(mask, importance)
    output = surrogate(kept, under(mask, old_logprobs), weights, mask)
    clipped = output.clipped & mask
    return TraceTerm(output.loss, mask & ~clipped if surrogate.drops_clipped else mask, clipped)


def marker_term(logprobs: Tensor, mask: Tensor) -> TokenTerm:
    """Cross-entropy of markers: `-logprobs`, in nats.

    Args:
        logprobs: `[N, C]` of the policy.
        mask: `[N, C]` bool, the marker tokens; by default those of `forced_marker_tokens`.

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
        token_weights: `[N, C]`; detached.
        mask: `[N, C]` bool, the answer tokens.

    Returns:
        Values and mask.

    Example:
        >>> answer_term(torch.tensor([[-3.0, -0.5]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[True, True]])).values
        tensor([[3., 1.]])
    """
    return TokenTerm(under(mask, token_weights.detach()) * under(mask, -logprobs), mask)


def kl_term(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, estimator: KLEstimator) -> TokenTerm:
    """Estimate of KL(policy || reference) per sampled token, in nats.

    Args:
        logprobs: `[N, C]` of the policy.
        ref_logprobs: `[N, C]` of the reference; detached.
        mask: `[N, C]` bool, from `sampled_tokens`; the estimators hold only for tokens sampled from the policy.
        estimator: `K1`, `K2` or `K3`.

    Returns:
        Values and mask.

    Example:
        >>> from nrt_lightning.functional import K1
        >>> kl_term(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]), torch.tensor([[True]]), K1()).values
        tensor([[0.5000]])
    """
    return TokenTerm(estimator(under(mask, logprobs), under(mask, ref_logprobs.detach())), mask)


def entropy_term(entropy: Tensor, mask: Tensor) -> TokenTerm:
    """Negative entropy of the distributions of the sampled tokens, in nats.

    Args:
        entropy: `[N, C]` of the policy, with gradient.
        mask: `[N, C]` bool, from `sampled_tokens`.

    Returns:
        Values and mask.

    Example:
        >>> entropy_term(torch.tensor([[0.5, 3.0]]), torch.tensor([[True, False]])).values
        tensor([[-0.5000,  0.0000]])
    """
    return TokenTerm(under(mask, -entropy), mask)
