"""The part of a run's CPU time that logging takes: values, loggers, samples of traces, the answer heat map.

    python -m benchmarks.logging_overhead [--steps 150] [OPTION ...]

Runs the quickstart with TensorBoard, `TraceSamples` and `AnswerHeatMap`, and further options of `nrt-lightning fit`.
The CPU seconds of all hooks of these callbacks and of all that modules and loggers log are counted within the run, so
the ratio does not depend on other work of the machine. Nested calls are counted once.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from nrt_lightning import AnswerHeatMap, Dashboard, Hyperparameters, RunHistory, StepAxis, TraceSamples
from nrt_lightning.cli.main import run
from nrt_lightning.modules.training_log import TrainingLog

LIMIT = 0.03
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
    assert issubclass(RunHistory, Logger)
    Trainer.fit = counter.count("the rest of fit", Trainer.fit)  # type: ignore[method-assign]


def main(args: list[str] | None = None) -> float:
    """Print the table; return the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    given, options = parser.parse_known_args(args)
    counter = Counter()
    install(counter)
    with tempfile.TemporaryDirectory() as folder:
        run([
            "fit", "--config", "nrt:quickstart", f"--trainer.default_root_dir={folder}",
            f"--trainer.max_steps={given.steps}", "--trainer.callbacks+=nrt_lightning.AnswerHeatMap", *options,
        ])  # fmt: skip
    total = sum(counter.seconds.values())
    rest = counter.seconds.pop("the rest of fit")
    for name, seconds in sorted(counter.seconds.items(), key=lambda item: -item[1]):
        print(f"{name:20} {seconds:8.3f} CPU seconds  {seconds / total:7.2%}")
    ratio = 1 - rest / total
    print(f"{'all logging':20} {total - rest:8.3f} of {total:.1f}      {ratio:7.2%} (limit {LIMIT:.0%})")
    return ratio


if __name__ == "__main__":
    main()
