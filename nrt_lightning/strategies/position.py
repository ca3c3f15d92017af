"""The position of a run in its micro-batches, and Lightning's counters of it in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

from lightning.pytorch.loops import _FitLoop as FitLoop
from typing_extensions import override

COUNTERS = ("ready", "started", "processed", "completed")


def micro_batches_done(trainer: Any) -> int:
    """Micro-batches that training has processed, over all epochs: the number of the current one, from 0.

    Unlike the epoch and the micro-batch within it, this count is the same after any number of resumes.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed


def between_windows(trainer: Any, window: Any = None) -> bool:
    """True after the last micro-batch of a window and of an optimizer step, where an exact resume can begin.

    Args:
        trainer: that trains.
        window: `WindowStep` of the newest micro-batch; None if no windows are sampled.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.total.ready != loop.batch_progress.total.processed:  # inside a micro-batch
        return False
    last = window is None or (window.index + 1, window.epoch + 1) == (window.size, window.epochs)
    return last and not loop._should_accumulate()


def window_begin(trainer: Any, window: Any = None) -> int:
    """Micro-batches before the newest window, or optimizer step if that is longer; all if the next is yet to begin."""
    loop = trainer.fit_loop.epoch_loop
    done, step = loop.batch_progress.total.processed, loop.batch_progress.current.processed
    if between_windows(trainer, window):
        return done
    return done - step % max(1 if window is None else window.size * window.epochs, trainer.accumulate_grad_batches)


@dataclass
class Position:
    """Where a checkpoint was saved, between two micro-batches.

    Args:
        done: micro-batches processed, over all epochs.
        epoch: whole epochs before.
        step: micro-batches of the current epoch; all of them if the end of the epoch is still to be processed.
        ended: True if the epoch has no micro-batches left, and its end is still to be processed.
        validate: True if a validation that is due here is still to be done.
        lost: micro-batches that are trained again, because an optimizer step had been half accumulated.
        optimizer_steps: taken.
        logged: value of the counter that loggers use as step.
    """

    done: int
    epoch: int
    step: int
    ended: bool
    validate: bool
    lost: int
    optimizer_steps: int
    logged: int


def read_position(loops: dict[str, Any], accumulate: int, epoch_steps: int | None) -> Position:
    """The position in the state of Lightning's fit loop.

    Args:
        loops: state of the fit loop.
        accumulate: micro-batches of an optimizer step.
        epoch_steps: micro-batches of an epoch; None if only Lightning's counters tell.
    """
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]["current"]
    total, current = batches["total"], batches["current"]
    for name, count in chain(total.items(), current.items(), epochs.items()):
        if count < 0:
            raise ValueError(f"{name}={count}")
    done, within = total["processed"], total["ready"] > total["processed"]  # within: saved inside a micro-batch
    processed = epochs["processed"] == epochs["started"] and not within  # the end of the epoch has been processed
    if epoch_steps is None:
        ended, step = batches["is_last_batch"] and not within, current["processed"]
        epoch = max(0, epochs["processed"] - processed + (ended and processed))
    else:
        epoch, step = divmod(done, epoch_steps)
        ended = step == 0 and done > 0 and not within
        epoch, step = (epoch - 1, epoch_steps) if ended and not processed else (epoch, step)
    if ended and processed:
        ended, step = False, 0
    lost = 0 if ended else step % accumulate
    manual = loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    steps = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    logged = loops["epoch_loop.state_dict"].get("_batches_that_stepped", 0) + (not processed and not within)
    validate = total["completed"] < done and not within and not lost
    return Position(
        done - lost, epoch, step - lost, ended, validate, lost, manual or steps, logged if manual else steps
    )


def settle(loops: dict[str, Any], position: Position) -> None:
    """Write a position into the state of Lightning's fit loop, so that training goes on exactly there.

    Lightning saves its counters as they are while hooks run, half increased. Restored as they are, they are off by one
    after some saves at the end of an epoch, and a second resume begins at another micro-batch.
    """
    begun = position.step > 0
    epochs = dict(zip(COUNTERS, (position.epoch + begun, position.epoch + begun, *[position.epoch] * 2), strict=True))
    loops["epoch_progress"] = {"total": dict(epochs), "current": dict(epochs)}
    loops["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(COUNTERS, position.done),
        "current": dict.fromkeys(COUNTERS, position.step),
        "is_last_batch": position.ended,
    }
    validated = loops["epoch_loop.val_loop.batch_progress"]
    settled = dict.fromkeys(COUNTERS, validated["total"]["completed"])
    validated |= {"total": settled, "current": dict.fromkeys(COUNTERS, 0), "is_last_batch": False}
    step = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    for tracker in step.values():
        tracker["ready"] = tracker["completed"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = position.logged


class Unfinished(FitLoop):
    """The loop of a run that has taken all its steps, and was ended before it had processed the end of its epoch.

    Lightning would leave out the last validation, and what callbacks do at the end.
    """

    @property
    @override
    def done(self) -> bool:
        return False

    @override
    def on_advance_end(self) -> None:
        super().on_advance_end()
        self.__class__ = FitLoop  # type: ignore[assignment]


def finish(trainer: Any, position: Position) -> None:
    """Let a trainer that has taken all its steps do what is left of its last epoch. Called before training starts."""
    if type(trainer.fit_loop) is FitLoop and position.step > 0 and 0 <= trainer.max_steps <= position.optimizer_steps:
        trainer.fit_loop.__class__ = Unfinished


def go_on(trainer: Any, position: Position) -> None:
    """Let the trainer's loops, restored from `settle`, do what is still to be done at this position.

    Called when training starts, after Lightning has decided what to restart.
    """
    loop = trainer.fit_loop.epoch_loop
    if position.step == 0:  # the epoch begins
        loop.restarting = False
        return
    due = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    if (position.ended or loop._is_training_done) and not (due and position.validate):
        loop.val_loop._has_run = True  # nothing but the end of the epoch is left
        return
    if due:
        loop._batches_that_stepped -= not loop._should_accumulate()  # Lightning counts this step once more
        if position.validate:
            loop.val_loop._restart_stage = "restarted_mid_evaluation"
