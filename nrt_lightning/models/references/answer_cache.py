"""Log-probs of answers, kept on disk."""

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
    """One vector of log-probs for each row, in a directory that several processes may use at once.

    Every `add` writes a file of its own, first beside its place and then into it, so a reader sees a whole file or
    none. Two processes that score the same rows write the same file twice. A file that cannot be read is left out, and
    its rows are scored again.

    Args:
        directory: made when something is written.

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
        """Read what other processes have written since."""
        for path in sorted(self.directory.glob("*.safetensors")):
            if path.name not in self._read:
                self._read.add(path.name)
                try:
                    found = load_file(path)
                except (SafetensorError, OSError) as error:
                    log.warning("%s cannot be read (%s); its rows are scored again.", path, error)
                    continue
                # Rows are split and named as they were joined; what is known already stays as it is.
                parts = found["values"].split(found["lengths"].tolist())
                names = (bytes(row).hex() for row in found["keys"].tolist())
                self.values = dict(zip(names, parts, strict=True)) | self.values

    def add(self, values: dict[str, Tensor]) -> None:
        """Keep vectors under their keys, hexadecimal of one length, here and on disk."""
        self.values |= values
        tensors = {
            "keys": torch.tensor([list(bytes.fromhex(key)) for key in values], dtype=torch.uint8),  # [n, bytes]
            "lengths": torch.tensor([len(value) for value in values.values()]),  # [n]
            "values": torch.cat(list(values.values())),  # [sum of lengths]
        }
        name = f"{digest(*(key.encode() for key in values))}.safetensors"
        self._read.add(name)
        self.directory.mkdir(parents=True, exist_ok=True)
        beside = self.directory / f"{name}.{os.getpid()}.part"
        save_file(tensors, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(self.directory / name)
