"""Policies of which only the configuration is read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.tasks.tiny_tokenizer import build_tokenizer


class Sketch(Policy):
    """Reads only a `config.json`; its tokenizer is a stand-in."""

    grows_vocabulary = False

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings | {"pad_token": None})

    def _read(self, what: str, auto: Any) -> Any:
        return build_tokenizer() if what == "tokenizer" else super()._read(what, auto)


class Skeleton:
    """Counts of a policy's weights, without their values.

    Args:
        sketch: the policy.
        dtype: of all weights, if the precision sets it; None for the policy's.
    """

    def __init__(self, sketch: Sketch, dtype: torch.dtype | None = None) -> None:
        policy = copy.deepcopy(sketch)
        self.quantization = policy.quantization
        policy.weights, policy.quantization, policy.marker_is_new = "random", None, False
        with torch.device("meta"):
            policy.load()
        if dtype is not None:
            policy.to(dtype)
        everything, network = list(policy.parameters()), policy.network
        self.trained = [p for p in everything if p.requires_grad]
        self.adapter = self.trained if policy.adapter is not None else []
        self.base = [p for p in everything if policy.adapter is None or not p.requires_grad]
        embeddings = (network.get_input_embeddings(), network.get_output_embeddings())
        ends = {
            id(p) for embedding in embeddings for p in embedding.parameters()
        }  # inside the adapter, if there is one
        names = set(getattr(network, "_no_split_modules", None) or ())
        self.blocks = [list(m.parameters()) for m in network.modules() if type(m).__name__ in names]
        inside = {id(p) for block in self.blocks for p in block}
        self.root = [p for p in everything if id(p) not in inside]  # outside the blocks: embeddings, head, last norm
        layers = (m.weight for m in policy.modules() if isinstance(m, nn.Linear) and id(m.weight) not in ends)
        adapter = {id(p) for p in self.adapter}
        self.quantized = {id(w): w for w in layers if id(w) not in adapter} if self.quantization else {}

    def bytes(self, parameters: Sequence[Tensor]) -> int:
        """Bytes of the stored parameters."""
        return round(sum(self.bits(p) * p.numel() for p in parameters) / 8)

    def bits(self, parameter: Tensor) -> float:
        """Bits per weight of a parameter."""
        if self.quantization is not None and id(parameter) in self.quantized:
            return self.quantization.bits
        return 8 * parameter.element_size()

    @property
    def largest_quantized(self) -> int:
        """Bytes of the largest quantized layer, dequantized to 16 bits."""
        return max((2 * w.numel() for w in self.quantized.values()), default=0)


def count(parameters: Sequence[Tensor]) -> int:
    """Total number of elements."""
    return sum(p.numel() for p in parameters)
