"""Whether a reward follows the correctness of the answers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import kendall_rank_corrcoef
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


def reward_correctness(rewards: Tensor, right: Tensor, group_ids: Tensor) -> dict[str, Tensor]:
    """How well rewards tell traces that lead to a right answer from traces that do not.

    `auroc` is the probability that a right trace has a higher reward than a wrong one, of any question; 0.5 is chance.
    `kendall` is tau-b of the same. As correctness takes two values only, tau-b of n rewards that all differ is at most
    sqrt(2 p (1 - p) n / (n - 1)) with a share p of right traces: 0.76 for a half of eight. Equal rewards, of equal
    traces, raise that, up to 1. `_within` is the mean over the groups that hold both kinds: this is the order that
    advantages see, for they compare traces of one question.
    `right_first` is the share of those groups in which a right trace has the highest reward (ties count in part), and
    `right_first_by_chance` what a random order would give.

    Args:
        rewards: `[N]`.
        right: `[N]` bool.
        group_ids: `[N]` the question of each trace.

    Returns:
        Scalars by name; those that are undefined, because all traces are right or all wrong, are left out.

    Example:
        >>> rewards, right = torch.tensor([0.9, 0.1, 0.6, 0.7]), torch.tensor([True, False, False, False])
        >>> values = reward_correctness(rewards, right, torch.tensor([0, 0, 1, 1]))
        >>> {name: round(float(value), 3) for name, value in values.items() if "within" in name or "mixed" in name}
        {'mixed_groups': 0.5, 'auroc_within': 1.0, 'kendall_within': 1.0}
    """
    values = {"right": right.float().mean()}
    # Only the order counts. Ranks keep it where binary_auroc would squash large values into ties by a sigmoid.
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
    """AUROC and Kendall's tau-b of traces of both kinds."""
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

    def update(self, rewards: Tensor, right: Tensor, group_ids: Tensor) -> None:
        """Add traces, [N] each; a group's id is its own over all batches and processes."""
        self.rewards.append(rewards.double())
        self.right.append(right)
        self.group_ids.append(group_ids)

    def compute(self) -> dict[str, Tensor]:
        """See `reward_correctness`; nothing where there are no traces."""
        if len(self.rewards) == 0:  # a list, or a tensor where processes have been gathered
            return {}
        return reward_correctness(*(dim_zero_cat(state) for state in (self.rewards, self.right, self.group_ids)))
