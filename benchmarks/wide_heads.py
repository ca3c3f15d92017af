"""Widens the attention heads of an embedded base, as vLLM's CPU kernels need at least 32 dimensions.

    python -m benchmarks.wide_heads runs/registers-wide

Rotary pair i of a head with D dimensions rotates with theta^(-2i/D), as does pair 2i of a head with 2D dimensions. A
head is copied into one of twice the width at these indices, with zeros elsewhere. Queries are multiplied by sqrt(2),
since scores are divided by the root of the width. Zeros stay zero and get no gradient, so training is the same too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning.models.policy.loading import resolve


def widen(source: str, directory: str | Path) -> Path:
    """Write a Llama model with heads of twice the width.

    Args:
        source: a directory, or `embedded:NAME`.
        directory: target directory.
    """
    path = resolve(source)
    narrow = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    width = narrow.config.head_dim
    config = type(narrow.config).from_dict(narrow.config.to_dict() | {"head_dim": 2 * width})
    weights = narrow.state_dict()
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weights[name] = spread(weight, width, rotary_index(width)) * (2**0.5 if "q_proj" in name else 1.0)
        elif name.endswith("v_proj.weight"):
            weights[name] = spread(weight, width, torch.arange(width))
        elif name.endswith("o_proj.weight"):
            weights[name] = spread(weight.T, width, torch.arange(width)).T.contiguous()
    wide = AutoModelForCausalLM.from_config(config)
    wide.load_state_dict(weights)
    wide.generation_config = narrow.generation_config
    wide.save_pretrained(directory)
    AutoTokenizer.from_pretrained(path).save_pretrained(directory)
    return Path(directory)


def rotary_index(width: int) -> Tensor:
    """Indices of the dimensions of a head in the wider head. [D]"""
    first = 2 * torch.arange(width // 2)
    return torch.cat([first, first + width])


def spread(weight: Tensor, width: int, index: Tensor) -> Tensor:
    """Copy the rows of every head, [H * D, E], to these indices of heads of twice the width, [H * 2D, E]."""
    heads = weight.view(-1, width, weight.shape[1])  # [H, D, E]
    out = heads.new_zeros(heads.shape[0], 2 * width, weight.shape[1])
    out[:, index] = heads
    return out.flatten(0, 1)


if __name__ == "__main__":
    print(widen("embedded:registers-base", sys.argv[1]))
