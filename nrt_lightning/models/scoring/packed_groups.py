"""Packed groups: all tokens of a micro-batch as one row, without repeated prompts and without padding."""

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
from typing_extensions import override

from nrt_lightning.models.scoring.base import (
    ScoringForward,
    at,
    logits_are_final,
    positions,
    scatter_scores,
    score_positions,
)
from nrt_lightning.models.scoring.shared_prompt import cache_refusal, checkpoints_activations
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "nrt_packed_groups"  # of the attention function, registered with transformers
BUCKET = 8  # completions of similar length that attend together


@dataclass(frozen=True)
class PackedGroups(ScoringForward):
    """One row of real tokens, all prompts followed by all completions; only attention separates the groups.

    Gives the same log-probs and gradients as `PromptCopies`. Each prompt is computed once per group. Padding and the
    last token of each completion, which predicts nothing, are not computed.

    Raises:
        InputError: at the first use, if the model's attention cannot be replaced.
    """

    @override
    def refusal(self, model: PreTrainedModel, length: int) -> str | None:
        if checkpoints_activations(model):
            return "activation checkpointing recomputes attention after it has been restored"
        attention = model.config._attn_implementation
        if attention != "sdpa":
            return f"it needs policy.attn_implementation sdpa, not {attention}"
        if not getattr(model, "_supports_attention_backend", False):
            return f"the attention of {type(model).__name__} cannot be replaced"
        if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
            return f"{type(model).__name__} caps its attention logits"
        return cache_refusal(model, length)

    @override
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        self.check(model, rollouts.length)
        layout = Layout(rollouts)
        wanted = rollouts.segments.completion_mask  # [N, C]
        targets = rollouts.completion_ids[wanted]  # [M]
        prompts = rollouts.prompt_ids[rollouts.prompt_mask], positions(rollouts.prompt_mask)[rollouts.prompt_mask]
        ids = torch.cat([prompts[0], rollouts.completion_ids[layout.read]]).unsqueeze(0)  # [1, P + R]
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),  # all are real; the layout restricts attention
            "position_ids": torch.cat([prompts[1], layout.position_ids]).unsqueeze(0),
            "use_cache": False,
        }
        with attending(model, layout):
            scales = at(rollouts.scales, wanted)  # [M]
            scores = scatter_scores(*score_positions(model, row(layout.before()), targets, inputs, scales), wanted)
        if baseline:
            scores.baseline_logprobs = baseline_logprobs(model, rollouts, layout)
        return scores


@torch.no_grad()
def baseline_logprobs(model: PreTrainedModel, rollouts: Rollouts, known: Layout) -> Tensor:
    """Log-probs of the answers after the empty trace, [B, T], with the prompts' keys and values from `known`."""
    empty = rollouts.empty_traces()
    layout = Layout(empty, known.prompts)
    ids = empty.completion_ids[layout.read].unsqueeze(0)  # [1, R]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": layout.position_ids.unsqueeze(0),
        "use_cache": False,
    }
    answers = rollouts.answer_mask  # [B, T], each predicted by the token before it
    with attending(model, layout):
        columns = layout.read.nonzero()[:, 1]  # [R]; the marker's last token predicts the answer's first
        before = (columns >= len(rollouts.marker_ids) - 1).nonzero().squeeze(1)
        scored = score_positions(model, row(before), rollouts.answer_ids[answers], inputs)
    return scatter_scores(*scored, answers).logprobs


def row(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in the single row."""
    return torch.zeros_like(columns), columns


class Layout:
    """Positions of the packed tokens: first P of prompts, then R of completions."""

    def __init__(self, rollouts: Rollouts, prompts: list[tuple[Tensor, Tensor]] | None = None) -> None:
        wanted, groups = rollouts.segments.completion_mask, rollouts.group_ids  # [N, C], [N]
        self.given = prompts is not None  # the row holds completions only
        self.prompts: list[tuple[Tensor, Tensor]] = prompts or []  # by layer: keys and values [B, heads, P, size]
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
        self.prompt_sees = ((causal & self.prompt_mask.unsqueeze(1)) | eye).unsqueeze(1)  # [B, 1, P, P]
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


@dataclass
class Bucket:
    """Completions of similar length."""

    groups: Tensor  # [n] their prompts
    tokens: Tensor  # [m] indices of their tokens among the R
    index: Tensor  # [m] flat positions of these tokens in [n, c]
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
            index=mine.flatten().nonzero().squeeze(1),
            shape=(len(rows), width),
            sees=torch.cat([prompts, causal], dim=2).unsqueeze(1),
        )


CURRENT: ContextVar[Layout] = ContextVar("layout")


@contextmanager
def attending(model: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """A context in which the model attends according to the layout."""
    config = model.config
    logits_are_final(
        model, model.get_output_embeddings()
    )  # cached now: it runs the model, which must not use this layout
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
        count, shape = len(layout.prompt_index), layout.prompt_mask.shape
        prompt = [unpacked(x[:count], layout.prompt_index, shape) for x in (q, k, v)]  # [B, heads, P, size]
        layout.prompts.append((prompt[1], prompt[2]))
        out = attend(prompt[0], prompt[1], prompt[2], layout.prompt_sees, scaling, dropout)
        parts.append(packed(out, layout.prompt_index))
        q, k, v = q[count:], k[count:], v[count:]
    keys, values = layout.prompts[layer]
    index, outs = [], []
    for bucket in layout.buckets:
        mine = [unpacked(x[bucket.tokens], bucket.index, bucket.shape) for x in (q, k, v)]
        all_keys = torch.cat([keys[bucket.groups], mine[1]], dim=2)
        all_values = torch.cat([values[bucket.groups], mine[2]], dim=2)
        outs.append(packed(attend(mine[0], all_keys, all_values, bucket.sees, scaling, dropout), bucket.index))
        index.append(bucket.tokens)
    done = torch.cat(outs)
    parts.append(torch.empty_like(done).index_copy(0, torch.cat(index), done))
    return torch.cat(parts).unsqueeze(0), None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout_p: float) -> Tensor:
    """Attention with repeated heads of keys and values if there are fewer than of queries."""
    fewer = query.shape[1] // key.shape[1]
    if fewer > 1:
        key, value = key.repeat_interleave(fewer, dim=1), value.repeat_interleave(fewer, dim=1)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout_p, scale=scale)


def unpacked(tokens: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Packed tokens at the flat positions `index`, 0 elsewhere. [m, heads, size] -> [n, heads, c, size]"""
    full = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:]).index_copy(0, index, tokens)
    return full.view(*shape, *tokens.shape[1:]).transpose(1, 2)


def packed(padded: Tensor, index: Tensor) -> Tensor:
    """The tokens at the flat positions `index`. [n, heads, c, size] -> [m, heads, size]"""
    return padded.transpose(1, 2).flatten(0, 1)[index]


AttentionInterface.register(NAME, packed_attention)
