"""Rotary frequencies, which stay in float32 whatever the weights are converted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

TABLES = ("GPTJAttention", "CodeGenAttention")  # their `embed_positions` are sines and cosines
HALF = (torch.bfloat16, torch.float16)


class FloatFrequencies(nn.Module):
    """A module whose rotary frequencies keep their dtype when `to`, `half` or `bfloat16` convert its weights.

    In 16 bits, a frequency is off by up to .4 %, and so is a position: by 4 tokens at token 1,000.
    """

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = {(id(module), name): module._buffers[name] for module, name in rotary_buffers(self)}
        super()._apply(fn, recurse)
        for module, name in rotary_buffers(self):
            old, new = before.get((id(module), name)), module._buffers[name]
            if old is not None and new is not None and old.dtype != new.dtype and new.dtype in HALF:
                module._buffers[name] = old.to(new.device)
        return self


def rotary_buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The modules and names of all buffers that hold frequencies of rotary embeddings, or their sines."""
    for module in model.modules():
        table = type(module).__name__ in TABLES
        for name, buffer in module._buffers.items():
            found = name.endswith("inv_freq") or (table and name == "embed_positions")
            if found and buffer is not None and buffer.is_floating_point():
                yield module, name


def restore_frequencies(model: nn.Module) -> None:
    """Compute the frequencies of a model anew that was converted to 16 bits before."""
    rounded: dict[nn.Module, list[str]] = {}
    for module, name in rotary_buffers(model):
        if module._buffers[name].dtype in HALF and hasattr(module, "config"):  # type: ignore[union-attr]
            rounded.setdefault(module, []).append(name)
    for module, names in rounded.items():
        device = module._buffers[names[0]].device  # type: ignore[union-attr]
        fresh = type(module)(config=module.config).to(device)
        for name in names:
            module._buffers[name] = fresh._buffers[name]
