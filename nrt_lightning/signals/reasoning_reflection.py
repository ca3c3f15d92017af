"""Confidence in the tokens of the answer that depend on the reasoning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least, group_statistics
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class ReasoningReflection(ScoreSignal):
    """`sum_i w(sigma_i) (log c_i - log b_i)`: DRO's reasoning reflection reward, R3 (arXiv 2506.13351, section 4.1.3).

    sigma_i is the standard deviation of log c_i over the rollouts of the prompt: tokens whose confidence hangs on the
    trace count most. Subtracting the confidence without a trace takes out what earlier answer tokens give away; it is
    the same for all traces of a prompt.

    What the paper leaves open, and what this does: w only has to grow with sigma, and here w(sigma) = sigma; the
    deviation is the unbiased one; the trace that the authors mask out is the empty trace.

    Args:
        threshold: tokens with a smaller sigma count nothing.

    Raises:
        InputError: if `threshold` is negative.

    Example:
        >>> ReasoningReflection().needs_baseline, ReasoningReflection().needs_group
        (True, True)
    """

    threshold: float = 0.0
    needs_baseline = True
    needs_group = True

    def __post_init__(self) -> None:
        check_at_least("threshold", self.threshold, 0)

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        if evidence.baseline_logprobs is None:
            raise InputError("ReasoningReflection needs baseline_logprobs: score the answers after the empty trace.")
        spread = group_statistics(evidence.answer_logprobs, evidence.rollouts.group_ids).std  # [N, T]
        weights = torch.where(spread >= self.threshold, spread, 0)
        gain = evidence.answer_logprobs - evidence.baseline_logprobs
        return torch.where(evidence.answer_mask, weights * gain, 0).sum(dim=1)
