"""Whether weights are the same as before: digests of files and of live models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import cached_file

from nrt_lightning.models.sharding.base import plain_name

BLOCK = 2**20  # bytes read at one place
PLACES = 32  # in each file; files up to 32 MiB are read whole


def base_digest(source: str, **hub_kwargs: Any) -> str:
    """A hash of a model's weight files: their sizes, and blocks spread evenly over each.

    Not of every byte, which would take minutes for large models: training changes weights everywhere.

    Args:
        source: a local directory or a hub id whose files have been read.
        hub_kwargs: of transformers, for instance `revision`.

    Returns:
        16 hexadecimal digits; the same wherever the files lie.
    """
    directory = Path(source)
    if not directory.is_dir():
        directory = Path(str(cached_file(source, "config.json", **hub_kwargs))).parent
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        step = max(BLOCK, (size - BLOCK) // (PLACES - 1))
        with path.open("rb") as file:
            for place in range(0, size, step):
                file.seek(place)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:16]


def digest(*parts: bytes) -> str:
    """A name for a sequence of byte strings, 32 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """A name for a model's weights: of their names, shapes, types and up to 64 values of each.

    It tells models apart by what they are and not by where they lie: a directory whose weights are replaced gives
    another name, a copy of it the same.
    """
    parts = []
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        # A clone, for numpy keeps the memory that it shares from being freed.
        values = flat[:: max(1, len(flat) // 64)].float().cpu().clone()
        parts += [f"{plain_name(name)} {tuple(weight.shape)} {weight.dtype}".encode(), values.numpy().tobytes()]
    return digest(*parts)
