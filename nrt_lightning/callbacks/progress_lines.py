"""Progress of a run as lines of text, for runs without a terminal; validations as a table, for those with one."""

from __future__ import annotations

import itertools
import math
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from typing_extensions import override

TRAINED = {  # figures of a training line: logged name, title
    "train/loss": "loss",
    "train/reward": "reward",
    "train/gain": "gain",
    "rollout/marker_rate": "marker",
    "rollout/trace_tokens": "trace tokens",
}
VALIDATED = {  # figures of a validation
    "exact_match": "exact match",
    "exact_match_forced": "marker forced",
    "exact_match_without_trace": "without trace",
    "confidence": "confidence",
    "trace_tokens": "trace tokens",
}
TOKENS = "trace tokens"  # shown with one decimal
EVERY = 60.0  # seconds between two lines of a test or of predictions, and at most of training
PAUSE = 10.0  # the same at least, where the number of steps is unknown
LINES = 100  # of training, at most, apart from those that EVERY adds


class Validations(Callback):
    """What lines and table have in common: when validations start and end."""

    def __init__(self) -> None:
        self.validating = 0.0  # when the validation began
        self.validated = 0.0  # seconds of validation since training started
        self.exact_match: tuple[float, int] | None = None  # of the last validation, and its step

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validating = time.perf_counter()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.perf_counter() - self.validating
        self.validated += seconds
        if trainer.sanity_checking:
            return
        found = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()
                 if name.startswith("val/") and value.numel() == 1}  # fmt: skip
        if "exact_match" in found:
            self.exact_match = found["exact_match"], trainer.global_step
        own = getattr(getattr(pl_module, "metrics", None), "names", [])
        titles = VALIDATED | {name: name for name in own}
        shown = {title: found[name] for name, title in titles.items() if name in found}
        if trainer.is_global_zero and shown and trainer.state.fn == "fit":
            self.show(trainer, shown, seconds)

    def show(self, trainer: Trainer, figures: dict[str, float], seconds: float) -> None:
        """Print the figures of a validation during training."""


class ValidationTable(Validations):
    """Prints one row of a table for each validation, above the progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self.header: list[str] = []

    @override
    def show(self, trainer: Trainer, figures: dict[str, float], seconds: float) -> None:
        bar: Any = trainer.progress_bar_callback
        write = print if bar is None else bar.print
        header = ["step", *figures, "seconds"]
        if header != self.header:
            self.header = header
            write(" | ".join(header))
            write("-|-".join("-" * len(title) for title in header))
        cells = [str(trainer.global_step), *(number(t, value) for t, value in figures.items()), f"{seconds:.1f}"]
        write(" | ".join(cell.rjust(len(title)) for title, cell in zip(header, cells, strict=True)))


class ProgressLines(Validations):
    """Prints lines during training and a line for each validation.

    A line comes every `log_every_n_steps` steps. Where this would be more than 100 lines, it comes after 2, 5, 10, 20
    and so on times as many steps, but at least once a minute. Where the number of steps is unknown, lines are ten
    seconds apart. A line has the figures of the step that loggers get too, the last validation's exact match, the
    seconds of a step and the time left. `NRTModule` and `SFTModule` add this callback where the output is no terminal,
    unless `enable_progress_bar` is false. Given to the trainer, it takes the place of the progress bar.

    Example:
        >>> callback = ProgressLines()
    """

    def __init__(self) -> None:
        super().__init__()
        self.started, self.first = 0.0, 0  # when training started, and at which step
        self.last = self.first, self.started  # step and seconds of the last line
        self.shown = 0.0  # when a line was last printed
        self.every, self.pause = 1, 0.0  # steps and seconds between two lines

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.shown = time.perf_counter()
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started, self.first, self.validated = time.perf_counter(), trainer.global_step, 0.0
        self.last = self.first, 0.0
        total = trainer.estimated_stepping_batches
        left = total - self.first if total > 0 else math.inf
        self.every = spacing(trainer.log_every_n_steps, left)  # type: ignore[attr-defined]
        self.shown, self.pause = self.started, 0.0 if math.isfinite(left) else PAUSE
        if trainer.is_global_zero:
            print(f"training: {total_steps(trainer)} steps, a line every {self.every}", flush=True)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, before = trainer.global_step, self.last[0]
        every, now = trainer.log_every_n_steps, time.perf_counter()  # type: ignore[attr-defined]
        regular = every and step % self.every == 0 and now - self.shown >= self.pause
        late = every and step % every == 0 and now - self.shown >= EVERY
        ends = every and step in (self.first + 1, trainer.estimated_stepping_batches)
        if step == before or not (regular or late or ends) or not trainer.is_global_zero:
            return
        self.shown = now
        trained = now - self.started - self.validated
        each = (trained - self.last[1]) / (step - before)
        self.last = step, trained
        found = trainer.callback_metrics
        parts = [f"{title} {number(title, float(found[name]))}" for name, title in TRAINED.items() if name in found]
        if "train/reward" in found:
            parts = [part for part in parts if not part.startswith("loss ")]
        if self.exact_match is not None:
            parts.append("exact match {:.3f} (step {})".format(*self.exact_match))
        parts += [f"{each:.2f} s a step", *self.left(trainer, step)]
        print(f"step {step} of {total_steps(trainer)}: {', '.join(parts)}", flush=True)

    def left(self, trainer: Trainer, step: int) -> list[str]:
        """The time that is left by the number of steps, validations included, or by `max_time`, if one is known."""
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        seconds = [limit for timer in timers if (limit := timer.time_remaining()) is not None]
        total = trainer.estimated_stepping_batches
        if step <= total < math.inf:
            seconds.append((time.perf_counter() - self.started) / (step - self.first) * (total - step))
        return [f"{timedelta(seconds=round(max(min(seconds), 0)))} left"] if seconds else []

    @override
    def show(self, trainer: Trainer, figures: dict[str, float], seconds: float) -> None:
        parts = [f"{title} {number(title, value)}" for title, value in figures.items()]
        print(f"validation at step {trainer.global_step}: {', '.join(parts)}, {seconds:.1f} s", flush=True)

    def evaluated(self, trainer: Trainer, what: str, batch_idx: int, total: Any) -> None:
        """Print how far a test or the predictions are, once in `EVERY` seconds."""
        now = time.perf_counter()
        if trainer.is_global_zero and now - self.shown >= EVERY:
            self.shown = now
            print(f"{what}: batch {batch_idx + 1} of {total}", flush=True)

    @override
    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.state.fn == "validate":
            self.evaluated(trainer, "validation", args[3], sum(trainer.num_val_batches))

    @override
    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.evaluated(trainer, "test", args[3], sum(trainer.num_test_batches))

    @override
    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.evaluated(trainer, "predictions", args[3], sum(trainer.num_predict_batches))


def spacing(every: int, steps: float) -> int:
    """Steps between two lines: a multiple of `every` that leaves at most `LINES` lines.

    >>> spacing(1, 150), spacing(1, 3000), spacing(10, 150), spacing(50, float("inf")), spacing(0, 9)
    (2, 50, 10, 50, 0)
    """
    if not every or not math.isfinite(steps):
        return every
    multiples = (every * digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    return next(multiple for multiple in multiples if steps <= LINES * multiple)


def total_steps(trainer: Trainer) -> str:
    """The number of optimizer steps, as text."""
    total = trainer.estimated_stepping_batches
    return str(int(total)) if math.isfinite(total) and total > 0 else "an unknown number"


def number(title: str, value: float) -> str:
    """A figure for a line or a table.

    >>> number("trace tokens", 15.04), number("reward", 0.41239)
    ('15.0', '0.412')
    """
    return f"{value:.1f}" if title == TOKENS else f"{value:.3f}"
