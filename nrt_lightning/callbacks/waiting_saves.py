"""Saves of `ModelCheckpoint` that wait for the end of a rollout window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from nrt_lightning.strategies.checkpoint_io import link_in_place

HOOKS = ("on_train_batch_end", "on_validation_end")
WRAPPED = ("_save_topk_checkpoint", "_save_last_checkpoint", *HOOKS)


class WaitingSaves:
    """Lets the saves of a `ModelCheckpoint` that fall due inside a window wait for its end.

    What is due is decided by the callback itself, at the same times as ever. The values that it monitors are those of
    the end of the window, or the newest of a validation.

    Args:
        callback: whose saves wait.
        must_wait: True if a save must wait now; takes the trainer.
    """

    def __init__(self, callback: Any, must_wait: Callable[[Any], bool]) -> None:
        self.callback, self.must_wait = callback, must_wait
        self.best_due = self.last_due = False
        self.steps = 0  # optimizer steps at the last micro-batch
        callback._link_checkpoint = link_in_place
        for name in WRAPPED:
            vars(callback).pop(name, None)  # of an earlier run
        self.save_best, self.save_last = callback._save_topk_checkpoint, callback._save_last_checkpoint
        self.hooks = {name: getattr(callback, name) for name in HOOKS}
        callback._save_topk_checkpoint, callback._save_last_checkpoint = self.best, self.last
        callback.on_train_batch_end, callback.on_validation_end = self.on_train_batch_end, self.on_validation_end

    def best(self, trainer: Any, candidates: dict[str, Any]) -> None:
        """Save one of the best, or note that it is due."""
        if self.must_wait(trainer):
            self.best_due = True
        else:
            self.save_best(trainer, candidates)

    def last(self, trainer: Any, candidates: dict[str, Any]) -> None:
        """Save the last, or note that it is due."""
        if self.must_wait(trainer):
            self.last_due = True
        else:
            self.save_last(trainer, candidates)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Let the callback decide, then save what has waited."""
        stepped, self.steps = trainer.global_step != self.steps, trainer.global_step
        counts_steps = type(self.callback).on_train_batch_end is ModelCheckpoint.on_train_batch_end
        if stepped or not counts_steps or self.callback._train_time_interval is not None:
            self.hooks["on_train_batch_end"](trainer, pl_module, *args)
        loop = trainer.fit_loop.epoch_loop
        if self.callback.monitor is None or not loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            self.save_due(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Let the callback decide, then save what has waited."""
        self.hooks["on_validation_end"](trainer, pl_module)
        self.save_due(trainer)

    def save_due(self, trainer: Any) -> None:
        """Save what is due, if the window has ended."""
        if not (self.best_due or self.last_due) or self.must_wait(trainer):
            return
        best, last, self.best_due, self.last_due = self.best_due, self.last_due, False, False
        if self.callback._last_global_step_saved == trainer.global_step:
            return
        candidates = self.callback._monitor_candidates(trainer)
        if best:
            self.save_best(trainer, candidates)
        if last or self.callback._last_global_step_saved == trainer.global_step:
            self.save_last(trainer, candidates)
