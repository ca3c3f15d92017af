"""Whether a base is the same as before, from its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

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
