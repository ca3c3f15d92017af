"""Progress of trace sampling, on or below the trainer's progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from tqdm import tqdm

from nrt_lightning.callbacks.one_line_bar import OneLineBar

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from nrt_lightning.rollouts.engine import Progress

DELAY = 2.0  # seconds; shorter generations show no bar
REFRESH = 0.2  # seconds between two changes of a description


@contextmanager
def generation_progress(trainer: Trainer, *, enabled: bool = True) -> Iterator[Progress | None]:
    """Yield a function that shows sampled tokens and unfinished rows; None if the trainer has no progress bar."""
    bar = trainer.progress_bar_callback if enabled and trainer.is_global_zero else None
    if isinstance(bar, OneLineBar) and trainer.training:
        with described(bar.train_progress_bar) as progress:
            yield progress
    elif isinstance(bar, TQDMProgressBar) and not bar.is_disabled:
        with tqdm(desc="  sampling traces", unit="token", position=1, leave=False, delay=DELAY) as line:

            def show(done: int, limit: int, rows: int) -> None:
                line.total = limit
                line.set_postfix(rows=rows, refresh=False)
                line.update(done - line.n)

            yield show
    elif isinstance(bar, RichProgressBar) and (live := bar.progress) is not None:
        task = live.add_task("sampling traces", total=0, visible=False)
        started = time.monotonic()

        def advance(done: int, limit: int, rows: int) -> None:
            live.update(task, completed=done, total=limit, visible=time.monotonic() - started > DELAY)

        try:
            yield advance
        finally:
            live.remove_task(task)
    else:
        yield None


@contextmanager
def described(bar: tqdm) -> Iterator[Progress]:
    """Yield a function that shows sampled tokens and unfinished rows as the description of a bar."""
    before, next_time = bar.desc, time.monotonic() + DELAY

    def show(done: int, limit: int, rows: int) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + REFRESH
            bar.set_description_str(f"sampling {done}/{limit} tokens, {rows} rows ")

    try:
        yield show
    finally:
        if bar.desc != before:
            bar.set_description_str(before)
