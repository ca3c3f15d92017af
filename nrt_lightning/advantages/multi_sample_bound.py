"""The contribution of each trace to the multi-sample bound of the answer's log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.advantages.base import AdvantageEstimator
from nrt_lightning.errors import InputError
from nrt_lightning.functional import at_least_float32, group_logsumexp, group_statistics


@dataclass(frozen=True)
class MultiSampleBound(AdvantageEstimator):
    """`K [log(1/K sum_j p_j) - log(1/(K-1) sum_{j != k} p_j)]`, with log p_j the rewards; 0 in a group of one.

    The multi-sample bound of JEPO (arXiv 2503.19618, section 4). The first term is the bound of the answer's
    log-likelihood. The second, the bound without trace k, is a control variate that keeps the gradient unbiased. The
    gradient of the bound is a sum over the K traces, and the loss is a mean over them: hence the factor K. Use it with
    the aggregator `LogProb` and, for the answer term of the bound, with `PosteriorTokenWeights`, which have it, too.

    Raises:
        InputError: when called, if a reward is above 0 and so not a log-prob.

    Example:
        >>> advantages = MultiSampleBound()(torch.tensor([0.6, 0.2]).log(), torch.tensor([0, 0]))
        >>> (advantages / 2).exp()  # 0.4 / 0.2 and 0.4 / 0.6
        tensor([2.0000, 0.6667])
    """

    needs_logprobs = True

    def __call__(self, values: Tensor, group_ids: Tensor, baseline_values: Tensor | None = None) -> Tensor:
        """Advantages `[N]` of the log-probs `values`."""
        values = at_least_float32(values)
        if bool((values > 1e-3).any()):
            raise InputError(
                f"MultiSampleBound got a reward of {float(values.max()):.3g}, but log-probs are at most 0. "
                "Set the aggregator to LogProb."
            )
        finite = values.isfinite()
        count = group_statistics(values, group_ids, finite).count.to(values.dtype)  # [N]
        every = group_logsumexp(values, group_ids)  # [N]
        others = log_sum_of_others(values, group_ids)  # [N]
        advantages = every - count.clamp(min=1).log() - (others - (count - 1).clamp(min=1).log())
        size = group_statistics(values, group_ids, ~values.isnan()).count  # [N] with the traces of probability 0
        return torch.where(finite & (count > 1), size * advantages, 0)


def log_sum_of_others(values: Tensor, group_ids: Tensor) -> Tensor:
    """`log sum_{j != k} exp(v_j)` over the finite values of row k's group; 0 if there are none. [N]"""
    is_other = (group_ids.unsqueeze(0) == group_ids.unsqueeze(1)) & values.isfinite()  # [N, N]
    is_other.fill_diagonal_(False)  # subtracting row k from the sum of all would lose small values
    others = torch.where(is_other, values, float("-inf")).logsumexp(1)  # [N]
    return torch.where(others.isfinite(), others, 0)
