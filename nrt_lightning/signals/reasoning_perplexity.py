"""How traces of a group rank by the perplexity of the answer after them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.rewards import MeanLogProb
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal
from nrt_lightning.signals.format import well_formed


@dataclass(frozen=True)
class PerplexityRank(ScoreSignal):
    """`(V - rank) / V` by reasoning perplexity, rank 0 the lowest, among the V well-formed rollouts.

    NOVER's reasoning reward (arXiv 2505.16022 and its code): 1 for the trace after which the reference answer is least
    surprising, 1/V for the worst of a group, 0 for a rollout that is not well-formed: whose trace, and own answer
    where it wrote one, did not end by itself. Equal perplexities are ranked in the order of the rollouts, as there.

    Example:
        >>> PerplexityRank().minimum
        0.0
    """

    minimum = 0.0
    needs_group = True

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
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
    """The share of the other traces of the group that are both longer and of a higher reasoning perplexity.

    NOVER's efficiency reward (arXiv 2505.16022 and its code). Only well-formed rollouts are compared; the others,
    and one without rivals, have 0.

    Example:
        >>> ReasoningEfficiency().minimum
        0.0
    """

    minimum = 0.0
    needs_group = True

    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        """See `ScoreSignal.__call__`."""
        formed = well_formed(evidence.rollouts)  # [N]
        perplexity, length = log_reasoning_perplexity(evidence), trace_length(evidence)
        rivals = rivals_of(evidence, formed)  # [N, N]
        better = (perplexity.unsqueeze(1) < perplexity.unsqueeze(0)) & (length.unsqueeze(1) < length.unsqueeze(0))
        return torch.where(formed, (rivals & better).sum(dim=1) / rivals.sum(dim=1).clamp(min=1), 0.0)


def log_reasoning_perplexity(evidence: ScoreEvidence) -> Tensor:
    """`-1/(T n) sum_i log c_i` with `n = max(1, 1 + log10 |trace|)`, the log of NOVER's reasoning perplexity. [N]

    The base of the logarithm is that of the code; the paper writes log.
    """
    nll = -MeanLogProb()(evidence.answer_logprobs, evidence.answer_mask).value  # [N]
    return nll / (1 + trace_length(evidence).clamp(min=1).log10())


def trace_length(evidence: ScoreEvidence) -> Tensor:
    """Tokens of each trace. [N]"""
    return evidence.rollouts.segments.trace_mask.sum(dim=1).to(evidence.answer_logprobs.dtype)


def rivals_of(evidence: ScoreEvidence, valid: Tensor) -> Tensor:
    """Which other valid rollouts are of the same group: `[N, N]` bool, row n's rivals in its columns."""
    groups = evidence.rollouts.group_ids
    same = (groups.unsqueeze(0) == groups.unsqueeze(1)) & valid.unsqueeze(0) & valid.unsqueeze(1)
    return same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
