"""Measurements: CPU seconds and GFLOP by phase, peak memory, the machine's matmul rate, medians."""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]
ROOT = Path(__file__).resolve().parent.parent


class Phases:
    """Amounts of a growing quantity (CPU seconds, FLOPs) by phase of a step.

    Time in an inner phase is not counted for the outer one. Time outside all phases is "other".

    >>> ticks = iter([0, 1, 2, 5, 9, 10])
    >>> phases = Phases(lambda: next(ticks))
    >>> with phases("forward"), phases("reward"):
    ...     pass
    >>> phases.end_step()
    >>> phases.steps
    [{'forward': 5.0, 'reward': 3.0, 'other': 2.0, 'step': 10}]
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.clock = clock
        self.steps: list[dict[str, float]] = []
        self.amounts: dict[str, float] = defaultdict(float)
        self.inner: list[float] = []  # of every open phase: amounts of its inner phases
        self.began = clock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self.clock()
        self.amounts[name] += 0.0
        self.inner.append(0.0)
        try:
            yield
        finally:
            taken = self.clock() - start
            self.amounts[name] += taken - self.inner.pop()
            if self.inner:
                self.inner[-1] += taken

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Count every call of `owner.method` as a phase."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(name):
                return original(*args, **kwargs)

        setattr(owner, method, timed)

    def end_step(self) -> None:
        now = self.clock()
        total = now - self.began
        self.steps.append({**self.amounts, "other": total - sum(self.amounts.values()), "step": total})
        self.amounts, self.began = defaultdict(float), now


def flop_counter() -> FlopCounterMode:
    """A counter of floating-point operations, exact and equal on all machines.

    It counts matrix products and attention. To torch's counter it adds in-place products, those with arranged weights
    and the attention kernel of CPUs. Element-wise work (softmax, AdamW) is not counted.
    """
    aten, onednn = torch.ops.aten, torch.backends.mkldnn.is_available()
    arranged = {torch.ops.mkldnn._linear_pointwise: linear_flop} if onednn else {}
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten.addmm_: added_product_flop,
            **arranged,
            aten._scaled_dot_product_flash_attention_for_cpu: attention_flop,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flop,
        },
    )


def added_product_flop(total: Shape, a: Shape, b: Shape, **_: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def linear_flop(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * weight[0] * weight[1]


def attention_flop(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores and weighted sum, masked entries included, as the kernel computes them."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])


def attention_backward_flop(grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """The scores again, and two products for each product of the forward pass."""
    return 2 * math.prod(query[:3]) * key[2] * (3 * query[3] + 2 * value[3])


@contextmanager
def flop_phases() -> Iterator[Phases]:
    """Context manager that measures phases in FLOPs."""
    with flop_counter() as counter:
        yield Phases(counter.get_total_flops)


def peak_memory() -> float:
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def matmul_rate(seconds: float = 1.0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Best rate of large square matrix products on one thread, in GFLOP per CPU second."""
    rates, size = [], 1024 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.process_time() if device == "cpu" else time.perf_counter()
        for _ in range(4):
            a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        now = time.process_time() if device == "cpu" else time.perf_counter()
        rates.append(4 * 2 * size**3 / (now - start) / 1e9)
    return max(rates)


def medians(steps: Iterable[dict[str, float]]) -> dict[str, float]:
    """Median of each entry; missing entries count as 0.

    >>> medians([{"step": 1.0}, {"step": 5.0, "other": 3.0}, {"step": 2.0}])
    {'step': 2.0, 'other': 0.0}
    """
    steps = list(steps)
    names = list(dict.fromkeys(name for step in steps for name in step))
    return {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}


def in_subprocess(module: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run `python -m module JSON` with one thread; return the JSON of its last line.

    In a new process, neither imports nor the state of the allocator affect other measurements.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-W", "ignore", "-m", module, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns.

    >>> print(table(["a", "b"], [["x", "1.0"]]))
    | a | b   |
    |---|-----|
    | x | 1.0 |
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
