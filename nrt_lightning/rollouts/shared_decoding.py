"""Decoding on CPUs with keys and values of prompts that the rows of a group share, instead of a copy for each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from typing_extensions import override

from nrt_lightning.functional.precision import at_least_float32
from nrt_lightning.models.scoring.attention_function import attention_function, attention_refusal
from nrt_lightning.models.scoring.base import additive
from nrt_lightning.models.scoring.shared_prompt import cache_refusal
from nrt_lightning.rollouts.decoding import Decoder, forward
from nrt_lightning.rollouts.growing_cache import GrowingLayer

NAME = "nrt_shared_decoding"  # of the attention function, registered with transformers
LEAST_SAVED = 2**19  # numbers in a layer's copies of keys and values; fewer are copied faster than shared


class SharedDecoder(Decoder):
    """Decodes rows whose keys and values of the prompt are kept and read once per prompt.

    Keys and values are in float32, in which products of few rows are faster than in bfloat16 on CPUs.

    Args:
        model: the model, whose attention can be replaced.
        cache: keys and values of the B prompts.
        mask: of the prompts' tokens, [B, P].
        counts: rows of each of the B prompts, at least 1. The rows of a prompt are adjacent, A in all.
    """

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor, counts: Sequence[int]) -> None:
        layers: list[Any] = cache.layers
        self.model = model
        # [B, heads, size, P] and [B, heads, P, size], contiguous, or every product copies them
        self.prompts = [
            (at_least_float32(x.keys).mT.contiguous(), at_least_float32(x.values).contiguous()) for x in layers
        ]
        self.mask = additive(mask.bool()[:, None, None], torch.float32)  # [B, 1, 1, P]
        self.cache = DynamicCache()  # of new tokens
        self.cache.layers = [Float32Layer() for _ in layers]
        self.groups = [group for group, count in enumerate(counts) for _ in range(count)]  # [A] each row's prompt
        self.position_ids = mask.sum(dim=1, keepdim=True)[self.groups]  # [A, 1] of the next token
        self.unmasked = torch.zeros(1, 1, 1, 1)  # stands for a mask, so that the model makes none
        self._arrange()

    @override
    def step(self, tokens: Tensor) -> Tensor:
        token = CURRENT.set(self)
        try:
            with attention_function(self.model.config, NAME):
                logits = forward(self.model, tokens.unsqueeze(1), self.unmasked, self.position_ids, self.cache)
        finally:
            CURRENT.reset(token)
        self.position_ids = self.position_ids + 1
        return logits

    @override
    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.position_ids = self.position_ids[rows]
        groups = [self.groups[row] for row in rows.tolist()]
        left = sorted(set(groups))
        self.groups = [left.index(group) for group in groups]
        if len(left) < len(self.mask):
            self.mask = self.mask[left]
            self.prompts = [(keys[left], values[left]) for keys, values in self.prompts]
        self._arrange()

    def _arrange(self) -> None:
        """Give each row a place among `width` rows of its prompt."""
        sizes = Counter(self.groups)
        self.width = max(sizes.values())
        self.full = len(self.groups) == len(self.mask) * self.width
        places = [group * self.width + place for group, size in sorted(sizes.items()) for place in range(size)]
        self.places = torch.tensor(places)  # [A]

    def by_prompt(self, rows: Tensor) -> Tensor:
        """Rows [A, heads, n, x] at their places, zeros elsewhere. -> [B, heads, width * n, x]"""
        _, heads, n, size = rows.shape
        if not self.full:
            rows = rows.new_zeros(len(self.mask) * self.width, heads, n, size).index_copy_(0, self.places, rows)
        return rows.view(len(self.mask), self.width, heads, n, size).transpose(1, 2).flatten(2, 3)

    def by_row(self, placed: Tensor) -> Tensor:
        """The rows at their places. [B, heads, width * n, x] -> [A, heads, n, x]"""
        rows = placed.unflatten(2, (self.width, -1)).transpose(1, 2).flatten(0, 1)
        return rows if self.full else rows[self.places]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one token a row to its prompt and to the new tokens. -> [A, heads, n, size]

        Args:
            layer: its number.
            query: n heads for each head of keys, [A, heads, n, size].
            key: of the new tokens, [A, heads, L, size].
            value: the same.
            scale: of the scores.
        """
        keys, values = self.prompts[layer]
        query = query * scale
        of_prompt = (self.by_prompt(query) @ keys).add_(self.mask)  # [B, heads, width * n, P]
        scores = torch.cat([of_prompt, self.by_prompt(query @ key.mT)], dim=-1)
        of_prompt, of_new = scores.softmax(dim=-1).split([keys.shape[-1], key.shape[2]], dim=-1)
        return (self.by_row(of_new) @ value).add_(self.by_row(of_prompt @ values))


class Float32Layer(GrowingLayer):
    """Keys and values in float32."""

    @override
    def computed(self, states: Tensor) -> Tensor:
        return at_least_float32(states)


CURRENT: ContextVar[SharedDecoder] = ContextVar("shared_decoder")


def shared_attention(
    module: Any,
    query: Tensor,  # [A, heads, 1, size]
    key: Tensor,  # [A, heads of keys, L, size]
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one token a row. -> [A, 1, heads, size]"""
    count, heads, size = len(query), key.shape[1], query.shape[-1]
    with torch.autocast("cpu", enabled=False):
        found = CURRENT.get().attend(
            module.layer_idx, at_least_float32(query).view(count, heads, -1, size), key, value,
            size**-0.5 if scaling is None else scaling,
        )  # fmt: skip
    return found.view(count, 1, -1, value.shape[-1]).to(query.dtype), None


def sharing_refusal(model: PreTrainedModel, length: int) -> str | None:
    """Why the model cannot decode sequences of this length with shared prompts; None if it can."""
    if model.device.type != "cpu":
        return "it is for CPUs"
    return attention_refusal(model) or cache_refusal(model, length)


def numbers_saved(cache: DynamicCache, counts: Sequence[int]) -> int:
    """Numbers in a layer's copies of keys and values that so many rows of each prompt would have."""
    layer: Any = cache.layers[0]  # [B, heads, P, size]
    return (layer.keys[0].numel() + layer.values[0].numel()) * sum(count - 1 for count in counts)


AttentionInterface.register(NAME, shared_attention)
