"""A cache of answers' log-probs on disk."""

from __future__ import annotations

import json
import logging
import os
import uuid
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class AnswerCache:
    """One vector of log-probs per row, in a directory that several processes may use at the same time.

    Each process appends to a file of its own, one line of JSON per row, and reads what was appended to the others since
    it last looked. Lines that cannot be read are skipped, and their rows are scored again.

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
        self.own = self.directory / f"{uuid.uuid4().hex}.jsonl"
        self.read: dict[Path, int] = {}  # bytes that were read of each file
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> Tensor:
        return self.values[key]

    def __len__(self) -> int:
        return len(self.values)

    def refresh(self) -> None:
        """Read the lines that other processes have written since the last call."""
        for path in sorted(self.directory.glob("*.jsonl")):
            start = self.read.get(path, 0)
            if path != self.own and path.stat().st_size > start:
                with path.open("rb") as file:
                    file.seek(start)
                    new = file.read()
                new = new[: new.rfind(b"\n") + 1]  # a line that is being written is read the next time
                self.read[path] = start + len(new)
                self._take(path, new)

    def _take(self, path: Path, new: bytes) -> None:
        for line in new.splitlines():
            try:
                key, values = json.loads(line)
                found = torch.tensor(values, dtype=torch.float32)
            except (ValueError, TypeError) as error:
                log.warning("%s has a line that cannot be read (%s); its row is scored again.", path, error)
            else:
                self.values.setdefault(key, found)  # values that are already in memory are kept

    def add(self, values: dict[str, Tensor]) -> None:
        """Store float32 vectors in memory and on disk."""
        self.values |= values
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.own.open("ab") as file:
            file.write("".join(f"{json.dumps([key, row.tolist()])}\n" for key, row in values.items()).encode())
            file.flush()
            os.fsync(file.fileno())
