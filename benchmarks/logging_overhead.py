"""The part of a run's CPU time that logging takes: values, loggers, samples of traces, the answer heat map.

    python -m benchmarks.logging_overhead --whole [--runs runs/quickstart]
    python -m benchmarks.logging_overhead [--steps 150] [OPTION ...]

The first runs what `make quickstart` runs, NRT and then SFT, with tests and reports. The second runs NRT alone, with
further options of `nrt-lightning fit`, such as `--trainer.callbacks+=nrt_lightning.AnswerHeatMap`. What is done once,
until the end of the first step, is counted apart there, so that a short run tells what a long one costs (`--of 150`,
with as many validations a step). The CPU seconds of all hooks of these callbacks, of reports, and of all that modules
and loggers log are counted within the run, so the ratio does not depend on other work of the machine. Nested calls are
counted once.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from nrt_lightning import AnswerHeatMap, Dashboard, Hyperparameters, StepAxis, TraceSamples
from nrt_lightning.callbacks import RunReport
from nrt_lightning.cli.main import run
from nrt_lightning.modules.training_log import TrainingLog

LIMIT = 0.03
REST = "training itself"
COUNTED: dict[str, list[tuple[type, str]]] = {
    "values of a step": [
        (TrainingLog, "log_training"), (TrainingLog, "outputs"), (LightningModule, "log"), (LightningModule, "log_dict")
    ],
    "loggers": [(_LoggerConnector, "log_metrics")],
}  # fmt: skip


class Counter:
    """CPU seconds by name; time in an inner call is not counted for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner: list[float] = []
        self.started = 0.0
        self.once: dict[str, float] = {}  # until the second step

    def count(self, name: str, function: Any) -> Any:
        """A function whose time is counted."""

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.inner.append(0.0)
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.process_time() - started
                self.seconds[name] += taken - self.inner.pop()
                if self.inner:
                    self.inner[-1] += taken

        return counted


def install(counter: Counter) -> None:
    """Count the hooks of callbacks, and what modules and loggers log."""
    for name, methods in COUNTED.items():
        for kind, method in methods:
            setattr(kind, method, counter.count(name, getattr(kind, method)))
    for kind in (TraceSamples, AnswerHeatMap, Dashboard, Hyperparameters, StepAxis):
        for method in [name for name in vars(kind) if name.startswith(("on_", "setup"))]:
            setattr(kind, method, counter.count(kind.__name__, getattr(kind, method)))
    begin = StepAxis.on_train_batch_start

    def note_first_step(self: StepAxis, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 1 and not counter.once:
            counter.once = dict(counter.seconds)
            counter.once[REST] = time.process_time() - counter.started - sum(counter.once.values())
        begin(self, trainer, *args)

    StepAxis.on_train_batch_start = note_first_step  # type: ignore[method-assign]
    RunReport.write = counter.count("RunReport", RunReport.write)  # type: ignore[method-assign]
    Trainer.fit = counter.count(REST, Trainer.fit)  # type: ignore[method-assign]
    counter.started = time.process_time()


def whole(counter: Counter, folder: Path) -> float:
    """Run the whole quickstart into a folder, print a table after each of its runs; return the ratio of both."""
    ratio = 0.0
    for name, more in (("NRT", []), ("NRT and SFT", ["--config", "nrt:methods/sft"])):
        run(["fit", "--config", "nrt:quickstart", *more, f"--trainer.default_root_dir={folder}"])
        total = time.process_time() - counter.started
        found = counter.seconds | {REST: total - sum(counter.seconds.values()) + counter.seconds[REST]}
        ratio = shown(f"CPU seconds of {name}", found)
    return ratio


def shown(title: str, found: dict[str, float]) -> float:
    """Print the CPU seconds of each part, and return the ratio of logging."""
    total = sum(found.values())
    print(f"{title:25} {total:8.3f}")
    for name, seconds in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{name:25} {seconds:8.3f} {seconds / total:6.2%}")
    ratio = 1 - found[REST] / total
    print(f"all logging: {ratio:.2%}, limit {LIMIT:.0%}", flush=True)
    return ratio


def main(args: list[str] | None = None) -> float:
    """Print the table; return the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--of", type=int, default=150)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--runs", type=Path, help="where the whole quickstart leaves its runs")
    given, options = parser.parse_known_args(args)
    counter = Counter()
    install(counter)
    with tempfile.TemporaryDirectory() as folder:
        if given.whole:
            return whole(counter, given.runs or Path(folder))
        run([
            "fit", "--config", "nrt:quickstart", f"--trainer.default_root_dir={folder}",
            f"--trainer.max_steps={given.steps}", *options,
        ])  # fmt: skip
    each = {name: (s - counter.once.get(name, 0)) / (given.steps - 1) for name, s in counter.seconds.items()}
    long = {name: counter.once.get(name, 0) + step * (given.of - 1) for name, step in each.items()}
    return shown(f"CPU seconds of {given.of} steps", long)


if __name__ == "__main__":
    main()
