"""Groups of a window one by one, and together again."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nrt_lightning.structures import Prompts, Struct, TensorStruct


def singles(window: list[Prompts]) -> list[Prompts]:
    """The groups of a window, each by itself."""
    groups: list[Prompts] = []
    for batch in window:
        groups += [batch.slice(index, index + 1) for index in range(len(batch))]
    return groups


def concat_groups(structs: Sequence[Struct]) -> Struct:
    """Groups of several structures as one: rows under one another, padded to the widest.

    What begins with `prompt` is padded on the left, all else on the right; group ids go on counting. What is no
    tensor is taken from the first, but lists, which are put together.
    """
    first = structs[0]
    values: dict[str, Any] = {}
    for place in dataclasses.fields(first):
        parts = [getattr(struct, place.name) for struct in structs]
        if isinstance(parts[0], TensorStruct):
            values[place.name] = concat_groups(parts)
        elif isinstance(parts[0], list):
            values[place.name] = [item for part in parts for item in part]
        elif isinstance(parts[0], dict):
            values[place.name] = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        elif place.name == "group_ids":
            starts = itertools.accumulate((len(struct.prompt_ids) for struct in structs), initial=0)  # type: ignore[attr-defined]
            values[place.name] = torch.cat([part + start for part, start in zip(parts, starts, strict=False)])
        elif isinstance(parts[0], Tensor):
            values[place.name] = torch.cat(padded(parts, left=place.name.startswith("prompt")))
    return dataclasses.replace(first, **values)


def padded(tensors: list[Tensor], left: bool) -> list[Tensor]:
    """Tensors [n, W] as wide as the widest; tensors [n] as they are."""
    if tensors[0].dim() < 2:
        return tensors
    width = max(tensor.shape[1] for tensor in tensors)
    return [F.pad(t, (width - t.shape[1], 0) if left else (0, width - t.shape[1])) for t in tensors]
