"""Where the tokens of packed groups are, and which of them see which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.models.scoring.base import additive
from nrt_lightning.structures import Rollouts

BUCKET = 8  # completions of similar length that attend together
LEAST = 16  # tokens that prompts begin with in common; fewer are not worth a pass of their own


class Layout:
    """Positions of the packed tokens: first those that all prompts begin with, the rests of prompts, then completions.

    P counts the tokens of the first two, R those of completions. In padded shapes, P is the common beginning and the
    longest rest.
    """

    def __init__(
        self, rollouts: Rollouts, prompts: dict[int, tuple[Tensor, Tensor]] | None = None, *, keep: bool = False
    ) -> None:
        wanted, groups = rollouts.segments.completion_mask, rollouts.group_ids  # [N, C], [N]
        self.given = prompts is not None  # the row holds completions only
        self.prompts = prompts or {}  # by layer: keys and values [B, heads, P, size], without gradient
        self.keep = keep  # the prompts' keys and values are read again
        self.rollouts = rollouts
        common = common_tokens(rollouts.prompt_ids, rollouts.prompt_mask)
        self.common = common if common >= LEAST else 0
        rest = after_common(rollouts.prompt_mask, self.common)
        self.rest = rest[:, rest.shape[1] - int(rest.sum(dim=1).max()) :] if self.common else rest  # [B, Q]
        self.rest_index = self.rest.flatten().nonzero().squeeze(1)
        self.prompt_mask = torch.cat([self.rest.new_ones(len(rest), self.common), self.rest], dim=1)  # [B, P]
        lengths = wanted.sum(dim=1)  # [N]
        column = torch.arange(wanted.shape[1], device=wanted.device)
        self.read = wanted & (column < lengths.unsqueeze(1) - 1)  # [N, C] all but the last token
        self.position_ids = (self.prompt_mask.sum(dim=1)[groups].unsqueeze(1) + column)[self.read]  # [R]
        self.common_sees, self.rest_sees = self._seen()
        self.buckets = [
            Bucket.of(rows, self.read, groups, self.prompt_mask) for rows in lengths.argsort(stable=True).split(BUCKET)
        ]

    def _seen(self) -> tuple[Seen, Seen]:
        """What the common beginning sees [1, 1, common, common], and what the rests of prompts see [B, 1, Q, P]."""
        ones = torch.ones(
            self.prompt_mask.shape[1], self.prompt_mask.shape[1], dtype=torch.bool, device=self.rest.device
        )
        causal, eye = ones.tril()[self.common :], torch.eye(len(ones), dtype=torch.bool, device=ones.device)
        rest = (causal & self.prompt_mask.unsqueeze(1)) | eye[self.common :]  # padding attends to itself
        return Seen(ones.tril()[None, None, : self.common, : self.common]), Seen(rest.unsqueeze(1))

    def prompt_tokens(self, values: Tensor) -> Tensor:
        """Of values of the prompts' tokens [B, P], those that are packed, without repeated ones."""
        mask = self.rollouts.prompt_mask
        return torch.cat([values[:1][mask[:1]][: self.common], values[after_common(mask, self.common)]])

    def before(self) -> Tensor:
        """The column that predicts each completion token, in row-major order."""
        wanted, groups = self.rollouts.segments.completion_mask, self.rollouts.group_ids
        prompt_ends = self.common + self.rest.sum(dim=1).cumsum(dim=0) - 1  # [B]
        counts = self.read.sum(dim=1)
        starts = self.common + len(self.rest_index) + counts.cumsum(dim=0) - counts  # [N]
        column = torch.arange(wanted.shape[1], device=wanted.device)
        before = torch.where(column > 0, starts.unsqueeze(1) + column - 1, prompt_ends[groups].unsqueeze(1))  # [N, C]
        return before[wanted]


def common_tokens(ids: Tensor, mask: Tensor) -> int:
    """Number of tokens that all prompts begin with, at least one less than the shortest has; 0 for one prompt.

    >>> ids = torch.tensor([[0, 5, 6, 7], [5, 6, 8, 9]])
    >>> common_tokens(ids, ids > 0)
    2
    """
    if len(ids) < 2:
        return 0
    shortest = int(mask.sum(dim=1).min())
    order = (~mask).long().argsort(dim=1, stable=True)  # moves the padding to the right
    begins = ids.gather(1, order)[:, : max(shortest - 1, 0)]
    return int((begins == begins[:1]).all(dim=0).long().cumprod(dim=0).sum())


def after_common(mask: Tensor, common: int) -> Tensor:
    """The tokens of prompts after the first `common` of each. `[B, P]`"""
    return mask & (mask.cumsum(dim=1) > common)


class Seen:
    """A boolean mask, which attention would turn into an additive one in every layer, and keep each.

    Args:
        mask: True where a query sees a key.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.made: dict[tuple[torch.dtype, int], Tensor] = {}

    def additive(self, dtype: torch.dtype, times: int = 1) -> Tensor:
        """The additive mask, made once; its queries so many times, one after the other."""
        if (dtype, times) not in self.made:
            self.made[dtype, times] = additive(self.mask, dtype).repeat(1, 1, times, 1)
        return self.made[dtype, times]


@dataclass
class Bucket:
    """Completions of similar length."""

    groups: Tensor  # [n] their prompts
    tokens: Tensor  # [m] indices of their tokens among the R
    index: Tensor  # [m] flat positions of these tokens in [n, c]
    shape: tuple[int, int]  # n, c
    sees: Seen  # [n, 1, c, P + c]

    @classmethod
    def of(cls, rows: Tensor, read: Tensor, groups: Tensor, prompt_mask: Tensor) -> Bucket:
        """The completions `rows`."""
        width = max(1, int(read[rows].sum(dim=1).max()))
        mine = read[rows, :width]  # [n, c]
        number = (read.flatten().long().cumsum(dim=0) - 1).view_as(read)
        causal = torch.ones(width, width, dtype=torch.bool, device=rows.device).tril().expand(len(rows), -1, -1)
        prompts = prompt_mask[groups[rows]].unsqueeze(1).expand(-1, width, -1)
        return cls(
            groups=groups[rows],
            tokens=number[rows, :width][mine],
            index=mine.flatten().nonzero().squeeze(1),
            shape=(len(rows), width),
            sees=Seen(torch.cat([prompts, causal], dim=2).unsqueeze(1)),
        )
