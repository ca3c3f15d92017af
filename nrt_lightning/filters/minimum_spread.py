"""Drops groups whose traces change no token of the answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least, group_statistics


@dataclass
class MinimumSpreadFilter(GroupFilter):
    """Keeps a group if `max_i sigma_i >= minimum`: some answer token whose log-prob depends on the trace.

    sigma_i, the standard deviation of log c_i over the rollouts of a group, is what DRO weights its tokens by and ranks
    questions with (arXiv 2506.13351, section 4.2.2). One strong token suffices, for in long answers few tokens depend
    on the reasoning and a mean over all would hide them.

    Args:
        minimum: smallest standard deviation, nats.

    Raises:
        InputError: if `minimum` is negative.

    Example:
        >>> logprobs = torch.tensor([[0.9, 0.2], [0.9, 0.8], [0.5, 0.5], [0.5, 0.5]]).log()
        >>> groups = Groups(torch.zeros(4), torch.tensor([0, 0, 1, 1]), logprobs, torch.ones(4, 2, dtype=torch.bool))
        >>> spread = MinimumSpreadFilter(0.2)
        >>> spread.keep(spread.measure(groups))
        tensor([ True, False])
    """

    minimum: float = 0.01

    def __post_init__(self) -> None:
        check_at_least("minimum", self.minimum, 0)

    def measure(self, groups: Groups) -> Tensor:
        """Largest standard deviation of a token's log-prob. -> [G]"""
        logprobs = torch.where(groups.answer_mask, groups.answer_logprobs, 0)  # [N, T]
        ids, width = groups.group_ids.unsqueeze(1), logprobs.shape[1]
        tokens = ids * width + torch.arange(width, device=ids.device)  # [N, T] every token of every group by itself
        spread = group_statistics(logprobs.flatten(), tokens.flatten()).std.view_as(logprobs)  # [N, T]
        return groups.per_group(spread.amax(1)) if width else groups.per_group(torch.zeros_like(groups.rewards))

    def keep(self, measured: Tensor) -> Tensor:
        """See `GroupFilter.keep`."""
        return measured >= self.minimum
