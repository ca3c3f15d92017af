"""NOVER's rewards: ranks by the perplexity of the answer after the trace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.rewards import MeanLogProb
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal
from nrt_lightning.signals.format import well_formed


@dataclass(frozen=True)
class PerplexityRank(ScoreSignal):
    """`(V - rank) / V` by reasoning perplexity among the V well-formed rollouts of a group; the lowest has rank 0.

    NOVER's reasoning reward (arXiv 2505.16022 and its code). It is 1 for the trace after which the reference answer has
    the lowest perplexity, 1/V for the highest, and 0 for a rollout that is not well-formed: its marker was forced, or
    the limit cut the policy's answer. Equal perplexities are ranked in the order of the rollouts, as in that code.

    Example:
        >>> PerplexityRank().minimum
        0.0
    """

    minimum = 0.0
    needs_group = True

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        formed = well_formed(evidence.rollouts)  # [N]
        perplexity = log_reasoning_perplexity(evidence)
        rivals = rivals_of(evidence, formed)  # [N, N]
        first = torch.arange(len(formed), device=formed.device)
        ahead = perplexity.unsqueeze(0) < perplexity.unsqueeze(1)  # [N, N] the column's is lower
        tied = (perplexity.unsqueeze(0) == perplexity.unsqueeze(1)) & (first.unsqueeze(0) < first.unsqueeze(1))
        rank = (rivals & (ahead | tied)).sum(dim=1)
        valid = rivals.sum(dim=1) + 1  # V
        return torch.where(formed, (valid - rank) / valid, 0.0)


@dataclass(frozen=True)
class ReasoningEfficiency(ScoreSignal):
    """The fraction of the other traces of the group that are longer and have a higher reasoning perplexity.

    NOVER's efficiency reward (arXiv 2505.16022 and its code). Only well-formed rollouts are compared. Other rollouts,
    and a rollout without others to compare with, have 0.

    Example:
        >>> ReasoningEfficiency().minimum
        0.0
    """

    minimum = 0.0
    needs_group = True

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        formed = well_formed(evidence.rollouts)  # [N]
        perplexity, length = log_reasoning_perplexity(evidence), trace_length(evidence)
        rivals = rivals_of(evidence, formed)  # [N, N]
        better = (perplexity.unsqueeze(1) < perplexity.unsqueeze(0)) & (length.unsqueeze(1) < length.unsqueeze(0))
        return torch.where(formed, (rivals & better).sum(dim=1) / rivals.sum(dim=1).clamp(min=1), 0.0)


def log_reasoning_perplexity(evidence: ScoreEvidence) -> Tensor:
    """`-1/(T n) sum_i log c_i` with `n = max(1, 1 + log10 |trace|)`, the log of NOVER's reasoning perplexity. [N]

    The logarithm's base is that code's; the paper writes log.
    """
    nll = -MeanLogProb()(evidence.answer_logprobs, evidence.answer_mask).value  # [N]
    return nll / (1 + trace_length(evidence).clamp(min=1).log10())


def trace_length(evidence: ScoreEvidence) -> Tensor:
    """Tokens of each trace. [N]"""
    return evidence.rollouts.segments.trace_mask.sum(dim=1).to(evidence.answer_logprobs.dtype)


def rivals_of(evidence: ScoreEvidence, valid: Tensor) -> Tensor:
    """The other valid rollouts of the same group: `[N, N]` bool, row n's rivals in its columns."""
    groups = evidence.rollouts.group_ids
    same = (groups.unsqueeze(0) == groups.unsqueeze(1)) & valid.unsqueeze(0) & valid.unsqueeze(1)
    return same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
