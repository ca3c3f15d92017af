"""Samplers: windows of micro-batches for training, and evaluation batches of equal number on every process."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.structures import WindowStep

log = logging.getLogger(__name__)


REPEATED = -1  # index of a padding row, which metrics do not count


@dataclass(frozen=True)
class MicroBatch:
    """The rows of a whole window, and the position of one micro-batch in it."""

    rows: list[int]
    window: WindowStep


def shuffled(rows: int, *key: int | str) -> Tensor:
    """A permutation of `range(rows)` that depends on the key alone, not on the state of a generator.

    >>> bool((shuffled(100, 0, "epoch", 3) == shuffled(100, 0, "epoch", 3)).all())
    True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(rows, generator=generator)  # [rows]


class WindowSampler(DistributedSampler[MicroBatch]):
    """Micro-batches of one process, window by window.

    A window is `batch_size * window` rows per process. Its rows are yielded `window` times, because the rollout samples
    for all of them at the first micro-batch and hands out one slice per micro-batch. This repeats `window_epochs` times
    to train on the same rollouts again. A hash of seed and pass shuffles the rows of every pass; rows that do not fill
    a last window are left out of that pass only. Use it in a `DataLoader` with `batch_size=None` whose dataset takes a
    `MicroBatch` as index.

    Args:
        rows: number of rows in the dataset.
        batch_size: prompts per micro-batch and process.
        window: micro-batches per rollout window.
        seed: seed of the shuffling.
        passes: passes over the rows per epoch.
        start: micro-batches that this process has processed in total, for an exact resume. The sampler begins in the
            epoch that contains this position.
        num_replicas: number of processes.
        rank: index of this process.
        limit: `Trainer(limit_train_batches=...)`: a number of micro-batches per epoch, or a fraction as a float. It
            determines the epoch of `start`.
        window_epochs: passes over each window.

    Raises:
        InputError: a number is out of range, the rows do not fill one window, or `limit` cuts a window.

    Example:
        >>> for batch in WindowSampler(rows=9, batch_size=2, window=2):
        ...     print(len(batch.rows), batch.window.index, batch.window.size)
        4 0 2
        4 1 2
        4 0 2
        4 1 2
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        window: int = 1,
        seed: int = 0,
        passes: int = 1,
        start: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        limit: int | float = 1.0,
        window_epochs: int = 1,
    ) -> None:
        least_one = {"batch_size": batch_size, "window": window, "passes": passes, "window_epochs": window_epochs}
        for name, value in least_one.items():
            check_at_least(name, value, 1)
        super().__init__(cast(Any, range(rows)), num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.rows, self.batch_size, self.window, self.passes, self.start = rows, batch_size, window, passes, start
        self.window_epochs = window_epochs
        self.window_rows = batch_size * window * num_replicas  # over all processes
        self.windows = rows // self.window_rows  # per pass
        if self.windows == 0:
            raise InputError(
                f"{rows} training rows do not fill one window of {self.window_rows}: batch_size={batch_size} x "
                f"window={window} x processes={num_replicas}. Give more rows, or lower batch_size or window."
            )
        self.window_steps = window * window_epochs
        self.steps = self.windows * self.window_steps * passes
        self.used = min(limit, self.steps) if isinstance(limit, int) else int(self.steps * limit)
        if self.used < 1 or self.used % self.window_steps:
            raise InputError(
                f"limit_train_batches={limit} cuts a window: it uses {self.used} of {self.steps} micro-batches. "
                f"Set it to a multiple of window={window} x window_epochs={window_epochs}."
            )
        self.epoch = start // self.used
        self._shuffled: tuple[int, Tensor] = (-1, torch.empty(0))  # number and windows of the last pass used

    def __len__(self) -> int:
        """Micro-batches of a whole epoch on this process, also after a resume."""
        return self.steps

    @property
    def order(self) -> dict[str, int]:
        """Settings that fix the micro-batch order (compared on resume)."""
        return {
            "rows": self.rows,
            "batch_size x processes": self.batch_size * self.num_replicas,
            "window": self.window,
            "window_epochs": self.window_epochs,
            "passes": self.passes,
            "seed": self.seed,
            "epoch_steps": self.used,
        }

    def __iter__(self) -> Iterator[MicroBatch]:
        """The micro-batches of the epoch, without those that were processed before a resume."""
        resumed, done = divmod(self.start, self.used)
        # Read the epoch now, not at the first `next`: loader workers prefetch before `set_epoch` is called.
        return self._micro_batches(self.epoch, done if self.epoch == resumed else 0)

    def rows_at(self, position: int) -> list[int]:
        """The rows of the window that contains a micro-batch, by its position over all epochs."""
        return self.rows_of(*divmod(position, self.used))

    def rows_of(self, epoch: int, step: int) -> list[int]:
        """The rows of the window that contains a micro-batch, by its position in an epoch."""
        data_pass, index = divmod(step // self.window_steps, self.windows)
        number = epoch * self.passes + data_pass
        if number != self._shuffled[0]:
            self._shuffled = number, self._pass_windows(number)
        return self._shuffled[1][index, self.rank].tolist()

    def _micro_batches(self, epoch: int, skip: int) -> Iterator[MicroBatch]:
        for step in range(skip, self.steps):
            number, position = divmod(step, self.window_steps)
            window_epoch, index = divmod(position, self.window)
            if step == skip or step % (self.windows * self.window_steps) == 0:
                self._log_left_out(epoch * self.passes + number // self.windows)
            yield MicroBatch(
                self.rows_of(epoch, step), WindowStep(index, self.window, window_epoch, self.window_epochs)
            )

    def _pass_windows(self, number: int) -> Tensor:
        """Rows of every window and process in a pass, [windows, ranks, batch_size * window].

        The rows of a micro-batch over all processes do not depend on the number of processes.
        """
        order = shuffled(self.rows, self.seed, "pass", number)[: self.windows * self.window_rows]
        steps = order.view(self.windows, self.window, self.num_replicas, self.batch_size)
        return steps.transpose(1, 2).reshape(self.windows, self.num_replicas, -1)

    def _log_left_out(self, number: int) -> None:
        left_out = self.rows - self.windows * self.window_rows
        if left_out and self.rank == 0:
            level = logging.INFO if number else logging.WARNING  # once at the default level: all passes have as many
            log.log(level, "Pass %d leaves out %d of %d rows, which do not fill a window.", number, left_out, self.rows)


class EvaluationSampler(DistributedSampler[int]):
    """Rows in order, the same number on every process, padded with the index `REPEATED`.

    Torch's sampler pads with real rows, which metrics would count twice.

    Example:
        >>> [list(EvaluationSampler(cast(Any, range(3)), num_replicas=2, rank=rank)) for rank in (0, 1)]
        [[0, 2], [1, -1]]
    """

    def __iter__(self) -> Iterator[int]:
        rows = len(cast(Any, self.dataset))
        for index in range(self.rank, self.num_samples * self.num_replicas, self.num_replicas):
            yield index if index < rows else REPEATED
