"""Filter by the effect of the traces on the answer tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nrt_lightning.filters.base import GroupFilter, Groups
from nrt_lightning.functional import check_at_least, group_statistics


@dataclass
class MinimumSpreadFilter(GroupFilter):
    """Keeps a group if `max_i sigma_i >= minimum`, with sigma_i the standard deviation of log c_i over its rollouts.

    A group is kept if the log-prob of at least one answer token depends on the trace. DRO weights tokens and ranks
    questions by sigma_i (arXiv 2506.13351, section 4.2.2). The filter uses the maximum because few tokens of a long
    answer depend on the reasoning, and a mean would hide them.

    Args:
        minimum: lower bound of the largest standard deviation, in nats.

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
        """Largest standard deviation of a token's log-prob; 0 for answers without tokens. -> `[G]`"""
        logprobs = torch.where(groups.answer_mask, groups.answer_logprobs, 0)  # [N, T]
        spread = group_statistics(logprobs, groups.group_ids).std  # [N, T]
        return groups.per_group(F.pad(spread, (0, 1)).amax(1))  # padded, because T may be 0

    def keep(self, values: Tensor) -> Tensor:
        """Keep values of at least `minimum`. `[G]` -> `[G]` bool"""
        return values >= self.minimum
