"""Logging of many values without moving each to the device where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
from typing_extensions import override


@contextmanager
def fewer_moves() -> Iterator[None]:
    """Let `LightningModule.log` move its metrics only if they are on another device.

    Lightning moves the metric of a name at every call, and copies its metadata to do so. That is most of what a call
    costs.
    """
    moved = _ResultMetric.to

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        there = len(args) == 1 and not kwargs and isinstance(args[0], torch.device)
        counted = getattr(self, "cumulated_batch_size", self.value) if there and self.is_tensor else None
        if counted is not None and self.value.device == args[0] == counted.device:
            return self
        return moved(self, *args, **kwargs)

    _ResultMetric.to = to  # type: ignore[method-assign]
    try:
        yield
    finally:
        _ResultMetric.to = moved  # type: ignore[method-assign]


class FewerMoves(L.LightningModule):
    """A module that logs with `fewer_moves`, its callbacks' values too."""

    @override
    def log(self, *args: Any, **kwargs: Any) -> None:
        with fewer_moves():
            super().log(*args, **kwargs)
