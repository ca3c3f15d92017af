"""The scoring forward that computes neither a prompt twice nor any padding: all tokens of a micro-batch as one row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from nrt_lightning.errors import InputError
from nrt_lightning.models.scoring.base import (
    ScoringForward,
    logits_are_final,
    positions,
    scatter_scores,
    score_positions,
)
from nrt_lightning.models.scoring.shared_prompt import cache_refusal, checkpoints_activations
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "nrt_packed_groups"  # of the attention function, among those of transformers
BUCKET = 8  # completions of like length that attend together


@dataclass(frozen=True)
class PackedGroups(ScoringForward):
    """All prompts, then all completions, as one row of real tokens; only attention sees them as groups.

    The same log-probs and gradients as `PromptCopies`. A prompt is computed once for its group, padding not at all,
    and of every completion the last token, which predicts nothing, is left out.

    Raises:
        InputError: at the first use, if the model's attention cannot be replaced.
    """

    @classmethod
    def refusal(cls, model: PreTrainedModel, length: int) -> str | None:
        """Why this model cannot score packed groups with sequences this long, or None if it can."""
        if checkpoints_activations(model):
            return "activation checkpointing would compute attention again after it has been put back"
        attention = model.config._attn_implementation
        if attention != "sdpa":
            return f"packed groups need attn_implementation sdpa, not {attention}"
        if not getattr(model, "_supports_attention_backend", False):
            return f"{type(model).__name__} does not let its attention be replaced"
        if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
            return f"{type(model).__name__} caps its attention's logits"
        return cache_refusal(model, length)

    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """See `ScoringForward`."""
        if reason := self.refusal(model, rollouts.length):
            raise InputError(f"policy.scoring PackedGroups cannot be used: {reason}. Set it to PromptCopies or null.")
        layout = Layout(rollouts)
        wanted = rollouts.segments.completion_mask  # [N, C]
        targets = rollouts.completion_ids[wanted]  # [M]
        prompts = rollouts.prompt_ids[rollouts.prompt_mask], positions(rollouts.prompt_mask)[rollouts.prompt_mask]
        ids = torch.cat([prompts[0], rollouts.completion_ids[layout.read]]).unsqueeze(0)  # [1, P + R]
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),  # all are real; which sees which is the layout's affair
            "position_ids": torch.cat([prompts[1], layout.places]).unsqueeze(0),
            "use_cache": False,
        }
        with attending(model, layout):
            scores = scatter_scores(*score_positions(model, row(layout.before()), targets, inputs), wanted)
        if baseline:
            scores.baseline_logprobs = baseline_logprobs(model, rollouts, layout)
        return scores


@torch.no_grad()
def baseline_logprobs(model: PreTrainedModel, rollouts: Rollouts, known: Layout) -> Tensor:
    """Log-probs of the answers after the empty trace, [B, T]; the prompts' keys and values are those of `known`."""
    empty = rollouts.empty_traces()
    layout = Layout(empty, known.prompts)
    ids = empty.completion_ids[layout.read].unsqueeze(0)  # [1, R]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": layout.places.unsqueeze(0),
        "use_cache": False,
    }
    answers = rollouts.answer_mask  # [B, T], each predicted by the token before it: all that is read
    with attending(model, layout):
        read = torch.arange(int(layout.read.sum()), device=answers.device)
        scored = score_positions(model, row(read), rollouts.answer_ids[answers], inputs)
    return scatter_scores(*scored, answers).logprobs


def row(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in the one row."""
    return torch.zeros_like(columns), columns


class Layout:
    """Where the packed tokens belong. P tokens of prompts come first, then R of completions."""

    def __init__(self, rollouts: Rollouts, prompts: list[tuple[Tensor, Tensor]] | None = None) -> None:
        wanted, groups = rollouts.segments.completion_mask, rollouts.group_ids  # [N, C], [N]
        self.given = prompts is not None  # the prompts are no part of the row
        self.prompts: list[tuple[Tensor, Tensor]] = prompts or []  # by layer: keys and values [B, heads, P, size]
        self.rollouts = rollouts
        self.prompt_mask = rollouts.prompt_mask  # [B, P]
        self.prompt_places = self.prompt_mask.flatten().nonzero().squeeze(1)
        lengths = wanted.sum(dim=1)  # [N]
        column = torch.arange(wanted.shape[1], device=wanted.device)
        self.read = wanted & (column < lengths.unsqueeze(1) - 1)  # [N, C] all but the last token
        self.places = (self.prompt_mask.sum(dim=1)[groups].unsqueeze(1) + column)[self.read]  # [R] position ids
        size = wanted.shape[0], self.prompt_mask.shape[1]
        causal = torch.ones(size[1], size[1], dtype=torch.bool, device=wanted.device).tril()
        eye = torch.eye(size[1], dtype=torch.bool, device=wanted.device)  # padding must see something
        self.prompt_sees = ((causal & self.prompt_mask.unsqueeze(1)) | eye).unsqueeze(1)  # [B, 1, P, P]
        self.buckets = [
            Bucket.of(rows, self.read, groups, self.prompt_mask) for rows in lengths.argsort(stable=True).split(BUCKET)
        ]

    def before(self) -> Tensor:
        """The column that predicts each token of the completions, in their row-major order."""
        wanted, groups = self.rollouts.segments.completion_mask, self.rollouts.group_ids
        prompt_ends = self.prompt_mask.sum(dim=1).cumsum(dim=0) - 1  # [B]
        counts = self.read.sum(dim=1)
        starts = len(self.prompt_places) + counts.cumsum(dim=0) - counts  # [N]
        column = torch.arange(wanted.shape[1], device=wanted.device)
        before = torch.where(column > 0, starts.unsqueeze(1) + column - 1, prompt_ends[groups].unsqueeze(1))  # [N, C]
        return before[wanted]


@dataclass
class Bucket:
    """Completions of like length."""

    groups: Tensor  # [n] their prompts
    tokens: Tensor  # [m] which of the R tokens are theirs
    places: Tensor  # [m] where these belong in [n, c]
    shape: tuple[int, int]  # n, c
    sees: Tensor  # [n, 1, c, P + c]

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
            places=mine.flatten().nonzero().squeeze(1),
            shape=(len(rows), width),
            sees=torch.cat([prompts, causal], dim=2).unsqueeze(1),
        )


CURRENT: ContextVar[Layout] = ContextVar("layout")


@contextmanager
def attending(model: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """Inside, the model attends as the layout says."""
    config = model.config
    logits_are_final(model, model.get_output_embeddings())  # runs the model at its first use: not with this layout
    before, token = config._attn_implementation, CURRENT.set(layout)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        CURRENT.reset(token)


def packed_attention(
    module: Any,
    query: Tensor,  # [1, heads, M, size]
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one row of packed groups. -> [1, M, heads, size]"""
    layout = CURRENT.get()
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [M, heads, size]
    layer = module.layer_idx
    parts = []
    if not layout.given:
        count, shape = len(layout.prompt_places), layout.prompt_mask.shape
        own = [unpacked(x[:count], layout.prompt_places, shape) for x in (q, k, v)]  # [B, heads, P, size]
        layout.prompts.append((own[1], own[2]))
        out = attend(own[0], own[1], own[2], layout.prompt_sees, scaling, dropout)
        parts.append(packed(out, layout.prompt_places))
        q, k, v = q[count:], k[count:], v[count:]
    keys, values = layout.prompts[layer]
    places, outs = [], []
    for bucket in layout.buckets:
        mine = [unpacked(x[bucket.tokens], bucket.places, bucket.shape) for x in (q, k, v)]
        all_keys = torch.cat([keys[bucket.groups], mine[1]], dim=2)
        all_values = torch.cat([values[bucket.groups], mine[2]], dim=2)
        outs.append(packed(attend(mine[0], all_keys, all_values, bucket.sees, scaling, dropout), bucket.places))
        places.append(bucket.tokens)
    done = torch.cat(outs)
    parts.append(torch.empty_like(done).index_copy(0, torch.cat(places), done))
    return torch.cat(parts).unsqueeze(0), None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout_p: float) -> Tensor:
    """Attention with the heads of keys and values repeated where there are fewer of them."""
    fewer = query.shape[1] // key.shape[1]
    if fewer > 1:
        key, value = key.repeat_interleave(fewer, dim=1), value.repeat_interleave(fewer, dim=1)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout_p, scale=scale)


def unpacked(tokens: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Packed tokens in their places, 0 elsewhere. [m, heads, size] -> [n, heads, c, size]"""
    full = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:]).index_copy(0, places, tokens)
    return full.view(*shape, *tokens.shape[1:]).transpose(1, 2)


def packed(padded: Tensor, places: Tensor) -> Tensor:
    """The tokens at `places`. [n, heads, c, size] -> [m, heads, size]"""
    return padded.transpose(1, 2).flatten(0, 1)[places]


AttentionInterface.register(NAME, packed_attention)
