"""DRO's reward: confidence in the answer tokens that depend on the trace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least, group_statistics
from nrt_lightning.signals.base import ScoreEvidence, ScoreSignal


@dataclass(frozen=True)
class ReasoningReflection(ScoreSignal):
    """`sum_i w(sigma_i) (log c_i - log b_i)`: DRO's reasoning reflection reward, R3 (arXiv 2506.13351, section 4.1.3).

    sigma_i is the standard deviation of log c_i over the rollouts of the prompt, so tokens whose confidence depends on
    the trace weigh most. Subtracting log b_i, the log-prob without a trace, removes what earlier answer tokens predict.
    It is the same for all traces of a prompt.

    The paper leaves some choices open. It requires that w grows with sigma; here w(sigma) = sigma. The deviation is
    unbiased. The masked-out trace of the authors is the empty trace.

    Args:
        threshold: tokens with a smaller sigma have weight 0.

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

    @override
    def __call__(self, evidence: ScoreEvidence) -> Tensor:
        if evidence.baseline_logprobs is None:
            raise InputError("ReasoningReflection needs baseline_logprobs: score the answers after the empty trace.")
        spread = group_statistics(evidence.answer_logprobs, evidence.rollouts.group_ids).std  # [N, T]
        weights = torch.where(spread >= self.threshold, spread, 0)
        gain = evidence.answer_logprobs - evidence.baseline_logprobs
        return torch.where(evidence.answer_mask, weights * gain, 0).sum(dim=1)
