"""Where the tokens of packed groups are, and which of them see which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.models.scoring.base import additive
from nrt_lightning.structures import Rollouts

BUCKET = 8  # completions of similar length that attend together


class Layout:
    """Positions of the packed tokens: first P of prompts, then R of completions."""

    def __init__(
        self, rollouts: Rollouts, prompts: dict[int, tuple[Tensor, Tensor]] | None = None, *, keep: bool = False
    ) -> None:
        wanted, groups = rollouts.segments.completion_mask, rollouts.group_ids  # [N, C], [N]
        self.given = prompts is not None  # the row holds completions only
        self.prompts = prompts or {}  # by layer: keys and values [B, heads, P, size], without gradient
        self.keep = keep  # the prompts' keys and values are read again
        self.rollouts = rollouts
        self.prompt_mask = rollouts.prompt_mask  # [B, P]
        self.prompt_index = self.prompt_mask.flatten().nonzero().squeeze(1)
        lengths = wanted.sum(dim=1)  # [N]
        column = torch.arange(wanted.shape[1], device=wanted.device)
        self.read = wanted & (column < lengths.unsqueeze(1) - 1)  # [N, C] all but the last token
        self.position_ids = (self.prompt_mask.sum(dim=1)[groups].unsqueeze(1) + column)[self.read]  # [R]
        size = wanted.shape[0], self.prompt_mask.shape[1]
        causal = torch.ones(size[1], size[1], dtype=torch.bool, device=wanted.device).tril()
        eye = torch.eye(size[1], dtype=torch.bool, device=wanted.device)  # padding attends to itself
        self.prompt_sees = Seen(((causal & self.prompt_mask.unsqueeze(1)) | eye).unsqueeze(1))  # [B, 1, P, P]
        self.buckets = [
            Bucket.of(rows, self.read, groups, self.prompt_mask) for rows in lengths.argsort(stable=True).split(BUCKET)
        ]

    def before(self) -> Tensor:
        """The column that predicts each completion token, in row-major order."""
        wanted, groups = self.rollouts.segments.completion_mask, self.rollouts.group_ids
        prompt_ends = self.prompt_mask.sum(dim=1).cumsum(dim=0) - 1  # [B]
        counts = self.read.sum(dim=1)
        starts = len(self.prompt_index) + counts.cumsum(dim=0) - counts  # [N]
        column = torch.arange(wanted.shape[1], device=wanted.device)
        before = torch.where(column > 0, starts.unsqueeze(1) + column - 1, prompt_ends[groups].unsqueeze(1))  # [N, C]
        return before[wanted]


class Seen:
    """A boolean mask, which attention would turn into an additive one in every layer, and keep each.

    Args:
        mask: True where a query sees a key.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.by_type: dict[torch.dtype, Tensor] = {}

    def additive(self, dtype: torch.dtype) -> Tensor:
        """The additive mask, made once."""
        if dtype not in self.by_type:
            self.by_type[dtype] = additive(self.mask, dtype)
        return self.by_type[dtype]


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
