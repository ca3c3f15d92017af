"""Packed groups: all tokens of a micro-batch as one row, without repeated prompts and without padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from typing_extensions import override

from nrt_lightning.functional.attention import attention
from nrt_lightning.functional.precision import compute_dtype
from nrt_lightning.models.scoring.attention_function import attention_function, attention_refusal
from nrt_lightning.models.scoring.base import (
    ScoringForward,
    at,
    logits_are_final,
    positions,
    scatter_scores,
    score_positions,
)
from nrt_lightning.models.scoring.layout import Layout, Seen
from nrt_lightning.models.scoring.shared_prompt import cache_refusal
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "nrt_packed_groups"  # of the attention function, registered with transformers


@dataclass(frozen=True)
class PackedGroups(ScoringForward):
    """One row of real tokens, all prompts followed by all completions; only attention separates the groups.

    Gives the same log-probs and gradients as `PromptCopies`. Each prompt is computed once per group, and instructions
    that all prompts begin with once. Padding and the last token of each completion, which predicts nothing, are not
    computed. Under activation checkpointing, what is computed again attends in the same way.

    Raises:
        InputError: at the first use, if the model's attention cannot be replaced.
    """

    @override
    def refusal(self, model: PreTrainedModel, length: int) -> str | None:
        return attention_refusal(model) or cache_refusal(model, length)

    @override
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        self.check(model, rollouts.length)
        layout = Layout(rollouts, keep=baseline)
        wanted = rollouts.segments.completion_mask  # [N, C]
        targets = rollouts.completion_ids[wanted]  # [M]
        ids = torch.cat([layout.prompt_tokens(rollouts.prompt_ids), rollouts.completion_ids[layout.read]]).unsqueeze(0)
        places = layout.prompt_tokens(positions(rollouts.prompt_mask))  # [P]
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),  # all are real; the layout restricts attention
            "position_ids": torch.cat([places, layout.position_ids]).unsqueeze(0),
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
    known.prompts = {}  # the backward pass of `known` does not read them
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


CURRENT: ContextVar[Layout] = ContextVar("layout")


@contextmanager
def attending(model: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """A context in which the model attends according to the layout, then and when activations are computed again."""
    # Cached now: it runs the model, which must not use this layout.
    logits_are_final(model, model.get_output_embeddings())
    recomputing = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    before = [(module, module._gradient_checkpointing_func) for module in recomputing]
    for module, checkpoint in before:
        module._gradient_checkpointing_func = with_layout(checkpoint, model.config, layout)
    try:
        with using(model.config, layout):
            yield
    finally:
        for module, checkpoint in before:
            module._gradient_checkpointing_func = checkpoint
        layout.keep = False  # of the first computation


def with_layout(checkpoint: Any, config: Any, layout: Layout) -> Any:
    """A checkpoint function whose functions attend according to the layout, whenever they are called."""

    def checkpointed(function: Any, *args: Any) -> Any:
        def attended(*inputs: Any) -> Any:
            with using(config, layout):
                return function(*inputs)

        return checkpoint(attended, *args)

    return checkpointed


@contextmanager
def using(config: Any, layout: Layout) -> Iterator[None]:
    """A context in which a model of this configuration attends according to the layout."""
    token = CURRENT.set(layout)
    try:
        with attention_function(config, NAME):
            yield
    finally:
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
    dtype = compute_dtype(query)  # under autocast, rotary embeddings have made queries and keys float32
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))  # [M, heads, size]
    parts: list[Tensor] = []
    if not layout.given:
        keys, values, parts = attend_prompts(layout, q, k, v, scaling, dropout)
        count = layout.common + len(layout.rest_index)
        q, k, v = q[count:], k[count:], v[count:]
        if layout.keep:
            layout.prompts[module.layer_idx] = keys.detach(), values.detach()
    else:
        keys, values = layout.prompts[module.layer_idx]
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


def attend_prompts(
    layout: Layout, q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Attention of the prompts. Their keys and values [B, heads, P, size], and what their tokens get."""
    common, shape, parts = layout.common, layout.rest.shape, []
    end = common + len(layout.rest_index)
    query, keys, values = (unpacked(x[common:end], layout.rest_index, shape) for x in (q, k, v))  # [B, heads, Q, size]
    if common:
        first, first_keys, first_values = (x[:common].transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        out = attend(first, first_keys, first_values, layout.common_sees, scale, dropout)
        parts.append(out[0].transpose(0, 1))
        keys = torch.cat([first_keys.expand(len(keys), -1, -1, -1), keys], dim=2)
        values = torch.cat([first_values.expand(len(values), -1, -1, -1), values], dim=2)
    out = attend(query, keys, values, layout.rest_sees, scale, dropout)
    return keys, values, [*parts, packed(out, layout.rest_index)]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Seen, scale: float | None, dropout_p: float) -> Tensor:
    """Attention with fewer heads of keys and values than of queries, if the model has fewer.

    On CPUs the queries that share a head are further queries of it. On other devices the keys and values are repeated.
    """
    fewer = query.shape[1] // key.shape[1]
    if fewer > 1 and query.device.type == "cpu":
        queries = query.unflatten(1, (-1, fewer)).flatten(2, 3)  # [n, heads of keys, fewer * c, size]
        out = attention(queries, key, value, mask.additive(query.dtype, fewer), dropout_p, scale)
        return out.unflatten(2, (fewer, -1)).flatten(1, 2)
    if fewer > 1:
        key, value = key.repeat_interleave(fewer, dim=1), value.repeat_interleave(fewer, dim=1)
    return attention(query, key, value, mask.additive(query.dtype), dropout_p, scale)


def unpacked(tokens: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Packed tokens at the flat positions `index`, 0 elsewhere. [m, heads, size] -> [n, heads, c, size]"""
    full = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:]).index_copy(0, index, tokens)
    return full.view(*shape, *tokens.shape[1:]).transpose(1, 2)


def packed(padded: Tensor, index: Tensor) -> Tensor:
    """The tokens at the flat positions `index`. [n, heads, c, size] -> [m, heads, size]"""
    return padded.transpose(1, 2).flatten(0, 1)[index]


AttentionInterface.register(NAME, packed_attention)
