"""Refuses callbacks that wait for a metric which the run does not log."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.dashboard import FOLDERS
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.evaluation.metrics import BUILT_IN

OF_STEPS = ("train/", "rollout/")  # logged by every training step
OF_CALLBACKS = ("correctness/", "collapse/")  # logged by callbacks of this package, now and then
ALWAYS = ("step", "epoch", "reward", "gain", "marker", "trace")  # Lightning's own, and those of the progress bar
KNOWN = ("nrt_lightning.", "lightning.")  # packages whose modules and callbacks log no other names


class KnownMonitors(Callback):
    """Checks the `monitor` of checkpoints, early stopping and the like.

    A metric of the validation is checked before any weights are read, one of the training after the first step. Modules
    and callbacks of the user may log any name, so with them nothing is checked.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[str, str]] = []  # callback and monitor, until the first step

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the names of the validation.

        Raises:
            InputError: names the callback, the metric and the nearest one.
        """
        self.waiting = []
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if stage != "fit" or not all(type(part).__module__.startswith(KNOWN) for part in (pl_module, *callbacks)):
            return
        module: Any = pl_module
        validated = [f"val/{name}" for name in (*BUILT_IN, *module.metrics.names)]
        for callback in callbacks:
            validated += callback.logged_names(module) if hasattr(callback, "logged_names") else []
        for callback in callbacks:
            name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
            if not isinstance(monitor, str):
                continue
            if monitor.startswith(OF_STEPS):
                self.waiting.append((name, monitor))
            elif monitor not in (*validated, *ALWAYS) and not monitor.startswith(OF_CALLBACKS):
                raise InputError(refusal(name, monitor, validated))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the names of the training."""
        logged = [name for name in trainer.callback_metrics if name.startswith(OF_STEPS)]
        for name, monitor in self.waiting:
            if monitor not in logged:
                raise InputError(refusal(name, monitor, logged))
        self.waiting = []


def refusal(callback: str, monitor: str, known: list[str]) -> str:
    """The message for a metric that is not logged.

    >>> refusal("EarlyStopping", "1_learns/val/confidence", ["val/confidence"])
    "EarlyStopping.monitor='1_learns/val/confidence' is the name in dashboards. Monitor 'val/confidence'."
    """
    group, _, plain = monitor.partition("/")
    if group in FOLDERS.values():
        return f"{callback}.monitor={monitor!r} is the name in dashboards. Monitor {plain!r}."
    return f"{callback}.monitor={monitor!r} is not logged by this run.{nearest(monitor, known)}"
