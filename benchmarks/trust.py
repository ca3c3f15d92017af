"""What safety costs: the guard's share of a step, a checkpoint compared with `torch.save`, memory of a long run.

    python -m benchmarks.trust guard --steps 20
    python -m benchmarks.trust checkpoint --mib 512 --pairs 5
    python -m benchmarks.trust soak --steps 2000

Times of the guard are those of the CPU, in one run. Pairs of saves alternate.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from nrt_lightning import (
    BestAndLast,
    ConstantSchedule,
    EMADeviationFilter,
    NonFiniteGuard,
    NRTModule,
    PlainTemplate,
    Policy,
    QADataModule,
    RegisterPrograms,
    Sampling,
)
from nrt_lightning.strategies.checkpoint_io import SafeCheckpointIO

SKIPPED = 2  # first steps, which are slower
WARM = 4  # first pairs of saves, until the page cache holds as many files as are kept and reuses their pages


def module(**settings: Any) -> NRTModule:
    """The quickstart's method."""
    sampling = Sampling(group_size=8, max_trace_tokens=32, suppress_eos=True)
    return NRTModule(
        Policy("embedded:registers-base"),
        **{"sampling": sampling, "schedule": ConstantSchedule(warmup=0)} | settings,
    )


def data(rows: int, **settings: Any) -> QADataModule:
    """Rows of the quickstart."""
    return QADataModule(RegisterPrograms("train", rows), template=PlainTemplate(), **{"batch_size": 16} | settings)


def trainer(folder: str, **settings: Any) -> L.Trainer:
    """A trainer on the CPU that prints nothing."""
    L.seed_everything(0, verbose=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return L.Trainer(accelerator="cpu", devices=1, max_epochs=-1, default_root_dir=folder, **quiet | settings)


class TimedGuard(NonFiniteGuard):
    """The guard, and the CPU seconds that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def timed(self, hook: Callable[..., None], *args: Any) -> None:
        started = time.process_time()
        hook(*args)
        self.seconds += time.process_time() - started

    def on_train_batch_start(self, *args: Any) -> None:
        self.timed(super().on_train_batch_start, *args)

    def on_before_backward(self, *args: Any) -> None:
        self.timed(super().on_before_backward, *args)

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.timed(super().on_before_optimizer_step, *args)


class Steps(L.Callback):
    """CPU seconds of every step, and of the guard in it."""

    def __init__(self, guard: TimedGuard) -> None:
        self.guard, self.last, self.found = guard, (0.0, 0.0), list[tuple[float, float]]()

    def on_train_batch_end(self, *args: Any) -> None:
        now = time.process_time(), self.guard.seconds
        self.found.append((now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now


def guard_share(steps: int, batch_size: int) -> str:
    """The guard's share of a training step, the median over steps."""
    guard = TimedGuard()
    watch = Steps(guard)
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(folder, max_steps=steps + SKIPPED, callbacks=[guard, watch], enable_checkpointing=False)
        run.fit(module(), data(batch_size * 4, batch_size=batch_size))
    found = watch.found[SKIPPED:]
    share = statistics.median(mine / whole for whole, mine in found)
    whole, mine = (statistics.median(values) * 1e3 for values in zip(*found, strict=True))
    return f"guard: {share:.2%} of a step ({mine:.2f} of {whole:.0f} ms of CPU, {steps} steps of {batch_size} prompts)"


def checkpoint_ratio(mib: int, pairs: int, directory: str | None) -> str:
    """The time of a checkpoint over that of torch.save and fsync of the same bytes."""
    weights = {f"layer{number}": torch.randn(2**18) for number in range(mib)}  # 1 MiB each
    checkpoint = {"global_step": 1, "state_dict": weights, "pytorch-lightning_version": L.__version__}
    io = SafeCheckpointIO()

    def plain(path: Path) -> None:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    found: dict[str, list[tuple[float, float]]] = {"plain": [], "safe": []}  # seconds, and those of the CPU
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        saves = {"plain": plain, "safe": lambda path: io.save_checkpoint(checkpoint, path)}
        for number in range(pairs + WARM):
            for name in sorted(saves, reverse=bool(number % 2)):
                started = time.perf_counter(), time.process_time()
                saves[name](Path(folder, f"{name}.ckpt"))
                found[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    ratios = []
    for other, safe in zip(found["plain"][WARM:], found["safe"][WARM:], strict=True):
        ratios.append([mine / theirs for mine, theirs in zip(safe, other, strict=True)])
    wall, cpu = (statistics.median(kind) for kind in zip(*ratios, strict=True))
    return f"checkpoint of {mib} MiB: {wall:.2f} times torch.save + fsync, {cpu:.2f} in CPU seconds, {pairs} pairs"


class Memory(L.Callback):
    """The memory of the process after every step, in MiB, and now and then the number of its Python objects.

    Args:
        every: steps between two counts of objects.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.found: list[float] = []
        self.objects: list[int] = []

    def on_train_batch_end(self, *args: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.found.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        if len(self.found) % self.every == 0:
            gc.collect()
            self.objects.append(len(gc.get_objects()))


def soak(steps: int) -> str:
    """The slope of memory over a long run with windows, filters, validations and saves."""
    memory = Memory(every=max(1, steps // 20))
    with tempfile.TemporaryDirectory() as folder:
        saves = [ModelCheckpoint(Path(folder, "all"), every_n_train_steps=50, save_last=True)]
        saves += [BestAndLast("val/confidence", dirpath=str(Path(folder, "best")))]
        run = trainer(
            folder, max_steps=steps, callbacks=[memory, *saves], val_check_interval=100, check_val_every_n_epoch=None,
            limit_val_batches=1,
        )  # fmt: skip
        filters = [EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)]
        short = Sampling(group_size=4, max_trace_tokens=12, refill_rounds=1)
        run.fit(
            module(filters=filters, sampling=short),
            data(240, batch_size=3, window=2, val=RegisterPrograms("validation", 6)),
        )
    late = torch.tensor(memory.found[len(memory.found) // 4 :])
    at = torch.arange(len(late), dtype=torch.float)
    slope = float(((at - at.mean()) * (late - late.mean())).sum() / (at - at.mean()).square().sum()) * 1000
    ends = f"{late[:20].mean():.1f} MiB at a quarter, {late[-20:].mean():.1f} at the end"
    objects = memory.objects[len(memory.objects) // 4 :]
    more = f"{objects[-1] - objects[0]:+} to {objects[-1]:,} Python objects since then"
    return f"soak of {steps} steps: {slope:+.2f} MiB per 1,000 steps ({ends}), {more}"


def main() -> None:
    """Print the measure that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["guard", "checkpoint", "soak"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--directory", help="of the disk that checkpoints are written to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "guard":
        print(guard_share(given.steps or 20, given.batch_size))
    elif given.what == "checkpoint":
        print(checkpoint_ratio(given.mib, given.pairs, given.directory))
    else:
        print(soak(given.steps or 2000))


if __name__ == "__main__":
    main()
