"""A cache of answers' log-probs on disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nrt_lightning.models.policy.digests import digest

log = logging.getLogger(__name__)


class AnswerCache:
    """One vector of log-probs per row, in a directory that several processes may use at the same time.

    Each `add` writes a new file under a temporary name and renames it, so that readers see complete files only. Two
    processes that score the same rows write the same file. Files that cannot be read are skipped, and their rows are
    scored again.

    Args:
        directory: created by the first `add`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     AnswerCache(directory).add({"00ff": torch.tensor([-1.0, -2.0])})
        ...     AnswerCache(directory)["00ff"]
        tensor([-1., -2.])
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.values: dict[str, Tensor] = {}
        self._read: set[str] = set()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> Tensor:
        return self.values[key]

    def __len__(self) -> int:
        return len(self.values)

    def refresh(self) -> None:
        """Read the files that other processes have written since the last call."""
        for path in sorted(self.directory.glob("*.safetensors")):
            if path.name not in self._read:
                self._read.add(path.name)
                try:
                    found = load_file(path)
                except (SafetensorError, OSError) as error:
                    log.warning("%s cannot be read (%s); its rows are scored again.", path, error)
                    continue
                # Values that are already in memory are kept.
                parts = found["values"].split(found["lengths"].tolist())
                names = (bytes(row).hex() for row in found["keys"].tolist())
                self.values = dict(zip(names, parts, strict=True)) | self.values

    def add(self, values: dict[str, Tensor]) -> None:
        """Store vectors in memory and on disk; the keys are hexadecimal strings of equal length."""
        self.values |= values
        tensors = {
            "keys": torch.tensor([list(bytes.fromhex(key)) for key in values], dtype=torch.uint8),  # [n, bytes]
            "lengths": torch.tensor([len(value) for value in values.values()]),  # [n]
            "values": torch.cat(list(values.values())),  # [sum of lengths]
        }
        name = f"{digest(*(key.encode() for key in values))}.safetensors"
        self._read.add(name)
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = self.directory / f"{name}.{os.getpid()}.part"
        save_file(tensors, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(self.directory / name)
