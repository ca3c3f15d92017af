"""What each trace adds to the likelihood of the answer under all traces of its group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.advantages.base import AdvantageEstimator
from nrt_lightning.errors import InputError
from nrt_lightning.functional import at_least_float32, group_logsumexp, group_statistics


@dataclass(frozen=True)
class MultiSampleBound(AdvantageEstimator):
    """`A_k = log(1/K sum_j p_j) - log(1/(K-1) sum_{j != k} p_j)`, with log p_j the rewards; 0 for a group of one.

    The multi-sample bound of JEPO (arXiv 2503.19618, section 4): its first term is the tighter bound of the answer's
    log-likelihood, the second the same without trace k, a control variate that keeps the gradient unbiased. For the
    answer term that belongs to it, see `PosteriorTokenWeights`.

    Rewards must be log-probs: those of `LogProb`.

    Raises:
        InputError: at the first use, if a reward is above 0 and hence no log-prob.

    Example:
        >>> advantages = MultiSampleBound()(torch.tensor([0.6, 0.2]).log(), torch.tensor([0, 0]))
        >>> advantages.exp()  # 0.4 / 0.2 and 0.4 / 0.6
        tensor([2.0000, 0.6667])
    """

    needs_logprobs = True

    @property
    def needs_baseline(self) -> bool:
        """Whether the rewards of the empty trace must be given: no."""
        return False

    @property
    def needs_group(self) -> bool:
        """Whether K >= 2 is required: always, with one trace there are no others."""
        return True

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of log-probs `[N]`; see `AdvantageEstimator.__call__`."""
        values = at_least_float32(values)
        if bool((values > 1e-3).any()):
            raise InputError(
                f"MultiSampleBound got a reward of {float(values.max()):.3g}, but its rewards must be log-probs, which "
                "are at most 0. Set the aggregator to LogProb."
            )
        finite = values.isfinite()
        count = group_statistics(values, group_ids, finite).count.to(values.dtype)  # [N]
        every = group_logsumexp(values, group_ids)  # [N]
        others = log_sum_of_others(values, group_ids)  # [N]
        advantages = every - count.clamp(min=1).log() - (others - (count - 1).clamp(min=1).log())
        return torch.where(finite & (count > 1), advantages, 0)


def log_sum_of_others(values: Tensor, group_ids: Tensor) -> Tensor:
    """`log sum_{j != k} exp(v_j)` over the finite values of row k's group; 0 where there are none. [N]"""
    is_other = (group_ids.unsqueeze(0) == group_ids.unsqueeze(1)) & values.isfinite()  # [N, N]
    is_other.fill_diagonal_(False)  # a sum without row k: subtracting it from the whole would lose small ones
    others = torch.where(is_other, values, float("-inf")).logsumexp(1)  # [N]
    return torch.where(others.isfinite(), others, 0)
