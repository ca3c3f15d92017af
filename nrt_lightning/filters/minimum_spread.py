"""Drops groups whose traces change no token of the answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least, group_statistics


@dataclass
class MinimumSpreadFilter(GroupFilter):
    """Keeps a group if `max_i std_k(c_ki) >= minimum`: some answer token whose confidence depends on the trace.

    The spread of an answer token over the rollouts of a group is what DRO weights its tokens by and filters queries
    with (arXiv 2506.13351). One strong token suffices here, for in long answers few tokens depend on the reasoning
    and a mean over all would hide them.

    Args:
        minimum: smallest standard deviation, of probabilities from 0 to 1.

    Raises:
        InputError: if `minimum` is negative.

    Example:
        >>> logprobs = torch.tensor([[0.9, 0.2], [0.9, 0.8], [0.5, 0.5], [0.5, 0.5]]).log()
        >>> groups = Groups(torch.zeros(4), torch.tensor([0, 0, 1, 1]), logprobs, torch.ones(4, 2, dtype=torch.bool))
        >>> spread = MinimumSpreadFilter(0.1)
        >>> spread.keep(spread.measure(groups))
        tensor([ True, False])
    """

    minimum: float = 0.01

    def __post_init__(self) -> None:
        check_at_least("minimum", self.minimum, 0)

    def measure(self, groups: Groups) -> Tensor:
        """Largest standard deviation of a token's confidence. -> [G]"""
        confidence = torch.where(groups.answer_mask, groups.answer_logprobs, 0).exp()  # [N, T] 1 outside the answer
        ids, width = groups.group_ids.unsqueeze(1), confidence.shape[1]
        tokens = ids * width + torch.arange(width, device=ids.device)  # [N, T] every token of every group by itself
        spread = group_statistics(confidence.flatten(), tokens.flatten()).std.view_as(confidence)  # [N, T]
        return groups.per_group(spread.amax(1)) if width else groups.per_group(torch.zeros_like(groups.rewards))

    def keep(self, measured: Tensor) -> Tensor:
        """See `GroupFilter.keep`."""
        return measured >= self.minimum
