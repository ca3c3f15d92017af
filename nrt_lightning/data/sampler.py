"""Which rows make up which micro-batch: windows, ranks, epochs, and the position after a resume."""

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
from nrt_lightning.structures import WindowStep

log = logging.getLogger(__name__)


REPEATED = -1  # the index that asks a dataset for a row that does not count


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one micro-batch's whole window, and its place in that window."""

    rows: list[int]
    window: WindowStep


def shuffled(rows: int, *key: int | str) -> Tensor:
    """A permutation that depends on the key alone, not on any generator's state.

    >>> bool((shuffled(100, 0, "epoch", 3) == shuffled(100, 0, "epoch", 3)).all())
    True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(rows, generator=generator)  # [rows]


class WindowSampler(DistributedSampler[MicroBatch]):
    """Micro-batches of one rank, a window at a time.

    A window is `batch_size * window` rows on each rank. It is given out `window` times with the same rows, so that the
    rollout can sample for all of them at the first step and hand out a slice at each; and all of that `window_epochs`
    times, to learn from the same rollouts again. Rows are shuffled anew in every
    pass by a hash of seed and pass; the few that do not fill a last window sit out that pass only. For a `DataLoader`
    with `batch_size=None` whose dataset takes a `MicroBatch`.

    Args:
        rows: rows of the dataset.
        batch_size: prompts of one micro-batch on one rank.
        window: micro-batches of one rollout window.
        seed: of the shuffling.
        passes: passes over the rows in one epoch.
        start: micro-batches that this rank has processed in all, to resume exactly: the epoch they end in begins there.
        num_replicas: ranks that share the rows.
        rank: which of them this is.
        limit: what the trainer uses of an epoch, as in `Trainer(limit_train_batches=...)`: a number of
            micro-batches, or a share as a float. Needed to find the place of `start`.
        window_epochs: how often a window is gone through.

    Raises:
        InputError: a number is out of range, a pass does not fill one window, or `limit` cuts a window.

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
        for name, value in {
            "batch_size": batch_size, "window": window, "passes": passes, "window_epochs": window_epochs
        }.items():  # fmt: skip
            if value < 1:
                raise InputError(f"{name}={value} is too small. Give at least 1.")
        super().__init__(cast(Any, range(rows)), num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.rows, self.batch_size, self.window, self.passes, self.start = rows, batch_size, window, passes, start
        self.window_epochs = window_epochs
        self.window_rows = batch_size * window * num_replicas  # of all ranks together
        self.windows = rows // self.window_rows  # of one pass
        if self.windows == 0:
            raise InputError(
                f"{rows} rows do not fill one window: {num_replicas} rank(s) x batch_size={batch_size} x "
                f"window={window} takes {self.window_rows}. Use more rows, or lower batch_size or window."
            )
        self.window_steps = window * window_epochs
        self.steps = self.windows * self.window_steps * passes
        self.used = min(limit, self.steps) if isinstance(limit, int) else int(self.steps * limit)
        if self.used < 1 or self.used % self.window_steps:
            raise InputError(
                f"limit_train_batches={limit} uses {self.used} of {self.steps} micro-batches and cuts a window. "
                f"Set it to a multiple of window={window} x window_epochs={window_epochs}."
            )
        self.epoch = start // self.used
        self._shuffled: tuple[int, Tensor] = (-1, torch.empty(0))  # a pass, and its rows

    def __len__(self) -> int:
        """Micro-batches of a whole epoch on this rank, resumed or not."""
        return self.steps

    @property
    def order(self) -> dict[str, int]:
        """The settings that the order of micro-batches hangs on."""
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
        """The epoch's micro-batches; without those already processed where a resume continues this epoch."""
        resumed, done = divmod(self.start, self.used)
        # The epoch is read here, not at the first `next`: loader workers look ahead before `set_epoch` is called.
        return self._micro_batches(self.epoch, done if self.epoch == resumed else 0)

    def following(self, epoch: int, step: int) -> tuple[int, int]:
        """Epoch and first micro-batch of the window after the one that begins at this micro-batch."""
        after = step + self.window_steps
        return (epoch, after) if after < self.used else (epoch + 1, 0)

    def rows_of(self, epoch: int, step: int) -> list[int]:
        """The rows of the window of a micro-batch."""
        data_pass, place = divmod(step // self.window_steps, self.windows)
        number = epoch * self.passes + data_pass
        if number != self._shuffled[0]:
            self._shuffled = number, self._pass_windows(number)
        return self._shuffled[1][place, self.rank].tolist()

    def _micro_batches(self, epoch: int, skip: int) -> Iterator[MicroBatch]:
        for step in range(skip, self.steps):
            number, place_in_window = divmod(step, self.window_steps)
            window_epoch, index = divmod(place_in_window, self.window)
            if step == skip or step % (self.windows * self.window_steps) == 0:
                self._say_what_is_left_out(epoch * self.passes + number // self.windows)
            where = WindowStep(index, self.window, window_epoch, self.window_epochs)
            yield MicroBatch(self.rows_of(epoch, step), where)

    def _pass_windows(self, number: int) -> Tensor:
        """Rows of every window and rank in a pass, [windows, ranks, batch_size * window].

        A micro-batch of all ranks together holds the same rows however many they are.
        """
        order = shuffled(self.rows, self.seed, "pass", number)[: self.windows * self.window_rows]
        steps = order.view(self.windows, self.window, self.num_replicas, self.batch_size)
        return steps.transpose(1, 2).reshape(self.windows, self.num_replicas, -1)

    def _say_what_is_left_out(self, number: int) -> None:
        used = self.windows * self.window_rows
        if used < self.rows and self.rank == 0:
            log.info(
                "Pass %d leaves out %d of %d rows, which do not fill a window.", number, self.rows - used, self.rows
            )


class EvaluationSampler(DistributedSampler[int]):
    """Rows in order, every process its share, all shares of one size: the gaps are filled with `REPEATED`.

    A sampler that fills them with real rows, as torch's does, would count those twice.

    Example:
        >>> [list(EvaluationSampler(cast(Any, range(3)), num_replicas=2, rank=rank)) for rank in (0, 1)]
        [[0, 2], [1, -1]]
    """

    def __iter__(self) -> Iterator[int]:
        rows = len(cast(Any, self.dataset))
        for place in range(self.num_samples):
            index = place * self.num_replicas + self.rank
            yield index if index < rows else REPEATED
