"""Splits a window into groups, and concatenates groups."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.functional.padding import pad_to_widest
from nrt_lightning.structures import Prompts, Struct, TensorStruct


def singles(window: list[Prompts]) -> list[Prompts]:
    """The groups of a window, each by itself."""
    groups: list[Prompts] = []
    for batch in window:
        groups += [batch.slice(index, index + 1) for index in range(len(batch))]
    return groups


def concat_groups(structs: Sequence[Struct]) -> Struct:
    """Concatenate structs along rows, padded to the widest.

    Fields whose names begin with `prompt` are padded on the left, others on the right. Group ids continue from one
    struct to the next. Lists are concatenated; other values that are not tensors are taken from the first struct.
    """
    first = structs[0]
    values: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(first)):
        parts = [getattr(struct, name) for struct in structs]
        if isinstance(parts[0], TensorStruct):
            values[name] = concat_groups(parts)
        elif isinstance(parts[0], list):
            values[name] = [item for part in parts for item in part]
        elif isinstance(parts[0], dict):
            values[name] = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        elif name == "group_ids":
            starts = itertools.accumulate((len(struct.prompt_ids) for struct in structs), initial=0)  # type: ignore[attr-defined]
            values[name] = torch.cat([part + start for part, start in zip(parts, starts, strict=False)])
        elif isinstance(parts[0], Tensor):
            matrices = parts[0].dim() > 1
            values[name] = torch.cat(pad_to_widest(parts, left=name.startswith("prompt")) if matrices else parts)
    return dataclasses.replace(first, **values)
