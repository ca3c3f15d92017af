"""One token more for every row: with a cache that grows, or with buffers of fixed shape for CUDA graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nrt_lightning.models.scoring.base import accepted
from nrt_lightning.models.scoring.shared_prompt import cache_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 256  # tokens that a fixed buffer can take before it is made twice as long


class Decoder(ABC):
    """The rows being written, as the model knows them."""

    @abstractmethod
    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to every row [A] and give the logits of the next. -> [A, V]"""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""


class GrowingDecoder(Decoder):
    """Every step as long as what has been written: nothing is computed in vain.

    Args:
        model: whose cache it is.
        cache: keys and values of the A prompts.
        mask: which of their tokens are real, [A, P].
    """

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor) -> None:
        self.model, self.cache, self.mask = model, cache, mask

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        place = self.mask.sum(dim=1, keepdim=True)  # [A, 1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        return forward(self.model, tokens.unsqueeze(1), self.mask.long(), place, self.cache)

    def keep(self, rows: Tensor) -> None:
        """See `Decoder`."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class FixedDecoder(Decoder):
    """Every step the same kernels on the same memory, so that a GPU can replay them without the host's help.

    A step is captured as a CUDA graph at its first use and again when rows leave or the buffers' length doubles: a few
    times a rollout. On other devices the same steps run one kernel at a time.

    Args:
        model: whose cache it is.
        cache: keys and values of the A prompts.
        mask: which of their tokens are real, [A, P].
        limit: longest sequence.
    """

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor, limit: int) -> None:
        self.model, self.limit = model, limit
        self.length = mask.shape[1]
        self.place = mask.sum(dim=1, keepdim=True)  # [A, 1] position id of the next token
        self.position = torch.tensor([self.length], device=mask.device)  # [1] column of the next token
        self.mask = mask.bool()[:, None, None]  # [A, 1, 1, room]
        self.cache = DynamicCache()
        layers: list[Any] = cache.layers
        self.layers = [FixedLayer(layer.keys, layer.values, self.position) for layer in layers]
        self.cache.layers = list(self.layers)
        layers.clear()  # otherwise the prompts' keys and values would be held twice while decoding
        self.ids = torch.zeros_like(self.place)  # [A, 1]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits = torch.empty(0)  # [A, V] what the last step gave
        self._lengthen(self.length + ROOM)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
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

    def keep(self, rows: Tensor) -> None:
        """See `Decoder`."""
        self.mask, self.place, self.ids = self.mask[rows], self.place[rows], self.ids[rows]
        for layer in self.layers:
            layer.batch_select_indices(rows)
        self.graph = None

    def _run(self) -> None:
        self.mask.index_fill_(3, self.position, True)
        self.logits = forward(self.model, self.ids, self.mask, self.place, self.cache)
        self.place.add_(1)
        self.position.add_(1)

    def _lengthen(self, room: int) -> None:
        more = min(room, self.limit) - self.mask.shape[-1]
        self.mask = F.pad(self.mask, (0, more))
        for layer in self.layers:
            layer.lengthen(more)
        self.graph = None

    def _capture(self) -> torch.cuda.CUDAGraph:
        """The next step as a graph. Trying it out writes one column, which the replay writes again."""
        before = self.mask.clone(), self.place.clone(), self.position.clone()

        def restore() -> None:
            for tensor, value in zip((self.mask, self.place, self.position), before, strict=True):
                tensor.copy_(value)

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # kernels choose their workspaces at their first uses
            for _ in range(2):
                self._run()
                restore()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph


class FixedLayer(DynamicLayer):
    """Keys and values in buffers that are written at `position`."""

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.position = keys, values, position  # [A, heads, room, size] twice, [1]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one token; give back all, of which the mask hides what is not written yet."""
        assert self.keys is not None
        assert self.values is not None
        self.keys.index_copy_(2, self.position, key_states)
        self.values.index_copy_(2, self.position, value_states)
        return self.keys, self.values

    def lengthen(self, more: int) -> None:
        """Room for more tokens."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = F.pad(self.keys, (0, 0, 0, more)), F.pad(self.values, (0, 0, 0, more))


def fixed_refusal(model: PreTrainedModel, length: int) -> str | None:
    """Why this model cannot decode sequences this long in buffers of fixed shape, or None if it can."""
    attention = model.config._attn_implementation
    if attention != "sdpa":
        return f"fixed shapes need attn_implementation sdpa, not {attention}"
    return cache_refusal(model, length)


def forward(model: Any, ids: Tensor, mask: Tensor, position_ids: Tensor, cache: DynamicCache) -> Tensor:
    """Logits of the token after the last. -> [A, V]"""
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": position_ids,
        "past_key_values": cache,
        "use_cache": True,
        "logits_to_keep": 1,
    }
    return model(**accepted(model, inputs)).logits[:, -1]
