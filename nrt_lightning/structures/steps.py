"""What the answer is worth after each step of a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.structures.base import TensorStruct


@dataclass
class Steps(TensorStruct):
    """The steps of N traces, of which the longest has S."""

    ends: Tensor  # [N, S] tokens of the trace up to the end of each step
    mask: Tensor  # [N, S]
    values: Tensor  # [N, S] log-prob of the reference answer after each step
    before: Tensor  # [N] that after the empty trace

    @property
    def gains(self) -> Tensor:
        """What each step adds to the log-prob of the answer. `[N, S]`"""
        earlier = self.values.roll(1, dims=1)
        earlier[:, 0] = self.before
        return (self.values - earlier).where(self.mask, 0)
