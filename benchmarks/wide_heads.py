"""An embedded base with wider attention heads that computes the same: vLLM's CPU kernels begin at 32 dimensions.

    python -m benchmarks.wide_heads runs/registers-wide

Rotary pair i of a head of D dimensions turns with theta^(-2i/D), and so does pair 2i of one of 2D. A head is put into
one twice as wide with its pairs in these places and 0 in the others; queries are multiplied by sqrt(2), for scores are
divided by the root of the head's width. Zeros give zeros and take no gradient, so training is the same, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning.models.policy.loading import resolve


def widen(source: str, directory: str | Path) -> Path:
    """Write a Llama model of local files with heads of twice the width.

    Args:
        source: a directory, or `embedded:NAME`.
        directory: where to.
    """
    path = resolve(source)
    narrow = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    width = narrow.config.head_dim
    config = type(narrow.config).from_dict(narrow.config.to_dict() | {"head_dim": 2 * width})
    weights = narrow.state_dict()
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weights[name] = spread(weight, width, rotary_places(width)) * (2**0.5 if "q_proj" in name else 1.0)
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


def rotary_places(width: int) -> Tensor:
    """Where the dimensions of a head go. [D]"""
    first = 2 * torch.arange(width // 2)
    return torch.cat([first, first + width])


def spread(weight: Tensor, width: int, places: Tensor) -> Tensor:
    """Rows of every head, [H * D, E], at these places of twice as many, [H * 2D, E]."""
    heads = weight.view(-1, width, weight.shape[1])  # [H, D, E]
    out = heads.new_zeros(heads.shape[0], 2 * width, weight.shape[1])
    out[:, places] = heads
    return out.flatten(0, 1)


if __name__ == "__main__":
    print(widen("embedded:registers-base", sys.argv[1]))
