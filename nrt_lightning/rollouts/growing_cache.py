"""A cache that grows in place, instead of copying all keys and values for every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer
from typing_extensions import override

from nrt_lightning.functional.precision import compute_dtype

ROOM = 64  # free tokens in a new buffer


class GrowingLayer(DynamicLayer):
    """Keys and values as views of buffers with room for more tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffers: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values; return all of them. [A, heads, L, size]"""
        key_states, value_states = self.computed(key_states), self.computed(value_states)
        if not self.is_initialized or self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            keys, values = key_states, value_states
        else:
            keys = self._appended("keys", self.keys, key_states)
            values = self._appended("values", self.values, value_states)
        self.keys, self.values = keys, values
        return keys, values

    @override
    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.buffers.clear()

    @override
    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in buffers with the same room: otherwise the next token would copy them once more."""
        if not self.buffers:
            super().batch_select_indices(indices)
        for name, buffer in self.buffers.items():
            old = getattr(self, name)  # [A, heads, L, size]
            self.buffers[name] = buffer.new_empty(len(indices), *buffer.shape[1:])
            setattr(self, name, self.buffers[name][:, :, : old.shape[2]])
            torch.index_select(old, 0, indices, out=getattr(self, name))

    def computed(self, states: Tensor) -> Tensor:
        """Convert to the type in which attention computes. Under autocast, rotary embeddings make keys float32."""
        return states.to(compute_dtype(states))

    def _appended(self, name: str, old: Tensor, new: Tensor) -> Tensor:
        length = old.shape[2] + new.shape[2]
        buffer = self.buffers.get(name)
        # Others may have replaced `old`, which is then no longer a view of the buffer.
        if buffer is None or old.data_ptr() != buffer.data_ptr() or length > buffer.shape[2]:
            buffer = old.new_empty(*old.shape[:2], length + ROOM, old.shape[3])
            buffer[:, :, : old.shape[2]] = old
            self.buffers[name] = buffer
        buffer[:, :, old.shape[2] : length] = new
        return buffer[:, :, :length]


def decoding_cache(config: PretrainedConfig) -> DynamicCache:
    """A cache for decoding, whose full-attention layers grow in place."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
