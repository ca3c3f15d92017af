"""Decoding steps with a growing cache, or with fixed-shape buffers for CUDA graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from typing_extensions import override

from nrt_lightning.functional.precision import compute_dtype
from nrt_lightning.models.scoring.base import additive as as_additive
from nrt_lightning.models.scoring.base import last_logits
from nrt_lightning.models.scoring.shared_prompt import cache_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 256  # initial number of new tokens in a fixed buffer, which doubles when full


class Decoder(ABC):
    """Decodes a batch of rows token by token."""

    min_drop_share: float = 0.0  # finished rows leave the batch only if they are at least this fraction of it

    @abstractmethod
    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row [A] and return the logits of the next. -> [A, V]"""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""


class GrowingDecoder(Decoder):
    """Decodes with a cache that grows by one token per step, without computing on padding.

    Args:
        model: the model.
        cache: keys and values of the A prompts.
        mask: of the prompts' tokens, [A, P].
        additive: the model takes masks [A, 1, 1, L], which are then made once and not in every step and layer.
    """

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor, *, additive: bool = False) -> None:
        self.model, self.cache, self.additive = model, cache, additive
        self.length = mask.shape[1]
        self.position_ids = mask.sum(dim=1, keepdim=True)  # [A, 1] of the next token
        self.mask = mask.long()  # [A, room], or [A, 1, 1, room]; new tokens are all seen
        if additive:
            dtype = compute_dtype(model.get_input_embeddings().weight)
            self.mask = as_additive(mask.bool()[:, None, None], dtype)

    @override
    def step(self, tokens: Tensor) -> Tensor:
        if self.length == self.mask.shape[-1]:
            self.mask = F.pad(self.mask, (0, ROOM), value=0.0 if self.additive else 1)
        self.length += 1
        mask = self.mask[..., : self.length]
        logits = forward(self.model, tokens.unsqueeze(1), mask, self.position_ids, self.cache)
        self.position_ids = self.position_ids + 1
        return logits

    @override
    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.position_ids = self.mask[rows], self.position_ids[rows]


class FixedDecoder(Decoder):
    """Decodes in buffers of fixed shape, so a GPU can replay each step as a CUDA graph.

    A step is captured at its first use, and again when rows leave or the buffers are enlarged: a few times per rollout.
    On other devices the steps run eagerly.

    Args:
        model: the model.
        cache: keys and values of the A prompts.
        mask: of the prompts' tokens, [A, P].
        limit: largest sequence length.
    """

    min_drop_share = 0.5  # each drop costs a capture

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor, limit: int) -> None:
        self.model, self.limit = model, limit
        self.length = mask.shape[1]
        self.position_ids = mask.sum(dim=1, keepdim=True)  # [A, 1] of the next token
        self.column = torch.tensor([self.length], device=mask.device)  # [1] of the next token
        self.mask = mask.bool()[:, None, None]  # [A, 1, 1, room]
        self.cache = DynamicCache()
        layers: list[Any] = cache.layers
        self.layers = [FixedLayer(layer.keys, layer.values, self.column) for layer in layers]
        self.cache.layers = list(self.layers)
        layers.clear()  # frees the prompts' keys and values, which were copied
        self.ids = torch.zeros_like(self.position_ids)  # [A, 1]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits = torch.empty(0)  # [A, V] of the last step
        self._lengthen(self.length + ROOM)

    @override
    def step(self, tokens: Tensor) -> Tensor:
        if self.length == self.mask.shape[-1]:
            self._lengthen(2 * self.length)
        self.length += 1
        self.ids.copy_(tokens.unsqueeze(1))
        if self.ids.device.type != "cuda":
            self._run()
        else:
            if self.graph is None:
                self.graph = self._capture()
            self.graph.replay()
        return self.logits

    @override
    def keep(self, rows: Tensor) -> None:
        self.mask, self.position_ids, self.ids = self.mask[rows], self.position_ids[rows], self.ids[rows]
        for layer in self.layers:
            layer.batch_select_indices(rows)
        self.graph = None

    def _run(self) -> None:
        self.mask.index_fill_(3, self.column, True)
        self.logits = forward(self.model, self.ids, self.mask, self.position_ids, self.cache)
        self.position_ids.add_(1)
        self.column.add_(1)

    def _lengthen(self, room: int) -> None:
        more = min(room, self.limit) - self.mask.shape[-1]
        self.mask = F.pad(self.mask, (0, more))
        for layer in self.layers:
            layer.lengthen(more)
        self.graph = None

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture the next step. The warm-up writes one column, which the replay overwrites."""
        before = self.mask.clone(), self.position_ids.clone(), self.column.clone()

        def restore() -> None:
            for tensor, value in zip((self.mask, self.position_ids, self.column), before, strict=True):
                tensor.copy_(value)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels allocate their workspaces at their first uses
            for _ in range(2):
                self._run()
                restore()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph


class FixedLayer(DynamicLayer):
    """Keys and values in buffers that are written at `column`."""

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.column = keys, values, column  # [A, heads, room, size] twice, [1]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one token; return the whole buffers, whose unwritten part the mask hides."""
        assert self.keys is not None
        assert self.values is not None
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values

    def lengthen(self, more: int) -> None:
        """Enlarge the buffers by `more` tokens."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = F.pad(self.keys, (0, 0, 0, more)), F.pad(self.values, (0, 0, 0, more))


def fixed_refusal(model: PreTrainedModel, length: int) -> str | None:
    """Why the model cannot decode sequences of this length in fixed-shape buffers; None if it can."""
    attention = model.config._attn_implementation
    if attention != "sdpa":
        return f"it needs attn_implementation sdpa, not {attention}"
    return cache_refusal(model, length)


def takes_additive_masks(model: PreTrainedModel, length: int) -> bool:
    """True if all layers of the model attend by one mask [A, 1, 1, L], which it takes as it is."""
    return bool(getattr(model, "_supports_attention_backend", False)) and fixed_refusal(model, length) is None


def forward(model: Any, ids: Tensor, mask: Tensor, position_ids: Tensor, cache: DynamicCache) -> Tensor:
    """Logits of the next token. -> [A, V]"""
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": position_ids,
        "past_key_values": cache,
        "use_cache": True,
    }
    return last_logits(model, inputs)
