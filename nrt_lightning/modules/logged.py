"""What modules log of their training steps, at little cost."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
from torch import Tensor
from typing_extensions import override

from nrt_lightning.metrics.scalars import Mean, Scalar, combined


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


class LoggedModule(L.LightningModule):
    """A module that logs scalars of all processes with `fewer_moves`, its callbacks' values too."""

    def __init__(self) -> None:
        super().__init__()
        self._started = 0.0

    @override
    def log(self, *args: Any, **kwargs: Any) -> None:
        with fewer_moves():
            super().log(*args, **kwargs)

    def start_clock(self) -> None:
        """A training step starts now."""
        self._started = time.perf_counter()

    def log_scalars(
        self, values: Mapping[str, Scalar | Tensor], prefix: str, batch_size: int, still: Collection[str] = ()
    ) -> None:
        """Log the scalars of all processes together, under `prefix/`.

        Args:
            values: scalars of this process by name. A tensor is a `Mean` of count 1.
            prefix: of the logged names.
            batch_size: of this process.
            still: names of those that cannot move in this configuration. Loggers do not get them; callbacks do.
        """
        scalars = {name: value if isinstance(value, Scalar) else Mean(value) for name, value in values.items()}
        for name, value in combined(scalars, self.device, self.trainer.world_size).items():
            self.log(f"{prefix}/{name}", value, batch_size=batch_size, logger=False if name in still else None)

    def log_throughput(self, tokens: Tensor | int) -> None:
        """Log tokens per second of the training step so far. Under automatic optimization this is the forward pass.

        It is logged in the first step, and in those whose values loggers get: short steps pay for every value.
        """
        trainer: Any = self._trainer
        step, every = (0, 0) if trainer is None else (trainer.global_step, trainer.log_every_n_steps)
        if step == 0 or (every and (step + 1) % every == 0):
            seconds = max(time.perf_counter() - self._started, 1e-9)
            self.log("train/tokens_per_second", float(tokens) / seconds, batch_size=1)
