"""Agreement of rewards with the correctness of answers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import kendall_rank_corrcoef
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override


def reward_correctness(rewards: Tensor, right: Tensor, group_ids: Tensor) -> dict[str, Tensor]:
    """Agreement of rewards with correctness: do traces that lead to right answers have higher rewards?

    `auroc` is the probability that a right trace has a higher reward than a wrong one, over all questions; chance is
    0.5. `kendall` is Kendall's tau-b of rewards and correctness. Correctness has two values only, so tau-b of n
    distinct rewards is at most sqrt(2 p (1 - p) n / (n - 1)) with a fraction p of right traces: 0.76 for p = 1/2 and
    n = 8. Equal rewards raise this bound, up to 1. `_within` is the mean over the groups with right and wrong traces,
    which is the order that advantages depend on. `right_first` is the fraction of those groups in which a right trace
    has the highest reward (ties count in part), and `right_first_by_chance` its expectation under a random order.

    Args:
        rewards: `[N]`.
        right: `[N]` bool.
        group_ids: `[N]` question of each trace.

    Returns:
        Scalars by name. Those that are undefined because all traces are right, or all wrong, are left out.

    Example:
        >>> rewards, right = torch.tensor([0.9, 0.1, 0.6, 0.7]), torch.tensor([True, False, False, False])
        >>> values = reward_correctness(rewards, right, torch.tensor([0, 0, 1, 1]))
        >>> {name: round(float(value), 3) for name, value in values.items() if "within" in name or "mixed" in name}
        {'mixed_groups': 0.5, 'auroc_within': 1.0, 'kendall_within': 1.0}
    """
    values = {"right": right.float().mean()}
    # binary_auroc applies a sigmoid to values outside [0, 1], which makes large ones equal. Ranks keep the order.
    ranks = torch.unique(rewards, return_inverse=True)[1].double()  # [N]
    if right.any() and not right.all():
        values |= order(ranks, right)
    groups = [(ranks[group_ids == group], right[group_ids == group]) for group in group_ids.unique()]
    mixed = [(rank, good) for rank, good in groups if good.any() and not good.all()]
    values["mixed_groups"] = torch.tensor(len(mixed) / max(len(groups), 1), device=rewards.device)
    if mixed:
        orders = [order(rank, good) for rank, good in mixed]
        values |= {f"{name}_within": torch.stack([o[name] for o in orders]).mean() for name in ("auroc", "kendall")}
        firsts = [good[rank == rank.max()].float().mean() for rank, good in mixed]
        values["right_first"] = torch.stack(firsts).mean()
        values["right_first_by_chance"] = torch.stack([good.float().mean() for _, good in mixed]).mean()
    return values


def order(ranks: Tensor, right: Tensor) -> dict[str, Tensor]:
    """AUROC and Kendall's tau-b of right and wrong traces."""
    tau = cast(Tensor, kendall_rank_corrcoef(ranks, right.to(ranks.dtype)))  # 0/0 where all ranks are equal
    return {
        "auroc": binary_auroc(ranks / max(float(ranks.max()), 1.0), right.long()).float(),
        "kendall": torch.nan_to_num(tau).float(),
    }


class CorrectnessMetric(Metric):
    """`reward_correctness` over batches and processes.

    Example:
        >>> metric = CorrectnessMetric()
        >>> metric.update(torch.tensor([0.2, 0.8]), torch.tensor([False, True]), torch.tensor([0, 0]))
        >>> metric.compute()["auroc"]
        tensor(1.)
    """

    full_state_update = False
    rewards: list[Tensor]
    right: list[Tensor]
    group_ids: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("rewards", "right", "group_ids"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @override
    def update(self, rewards: Tensor, right: Tensor, group_ids: Tensor) -> None:
        """Add traces, [N] each. Group ids must be unique over batches and processes."""
        self.rewards.append(rewards.double())
        self.right.append(right)
        self.group_ids.append(group_ids)

    @override
    def compute(self) -> dict[str, Tensor]:
        """The scalars of `reward_correctness`; empty without traces."""
        if len(self.rewards) == 0:  # a list; a tensor after synchronization
            return {}
        return reward_correctness(*(dim_zero_cat(state) for state in (self.rewards, self.right, self.group_ids)))
