"""A batch that is learned from a part at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.structures import Segments


@dataclass
class WholeBatch:
    """The batch that the rollouts of a micro-batch are a part of."""

    segments: Segments  # of all its rollouts
    rows: Tensor  # [n] which of them the micro-batch holds

    def part(self, values: Tensor, like: Tensor) -> Tensor:
        """The micro-batch's share of `values` of the batch, in the shape of `like` [n, c]."""
        return values[self.rows, : like.shape[1]]
