"""Exact continuation of a run from its checkpoints, whichever callback has saved them."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from nrt_lightning.callbacks.kept_metrics import begin, go_back, history_file, keep_metrics, unlogged
from nrt_lightning.callbacks.non_finite_guard import NonFiniteGuard
from nrt_lightning.callbacks.nothing_trained import NothingTrained
from nrt_lightning.callbacks.out_of_memory import NameOutOfMemory
from nrt_lightning.callbacks.run_folder import check_parent
from nrt_lightning.callbacks.run_settings import report_changed, settings_of
from nrt_lightning.callbacks.save_on_signal import SaveOnSignal
from nrt_lightning.callbacks.step_axis import StepAxis
from nrt_lightning.callbacks.waiting_saves import WaitingSaves
from nrt_lightning.data import QADataModule
from nrt_lightning.errors import InputError
from nrt_lightning.strategies import between_windows, micro_batches_done
from nrt_lightning.strategies.checkpoint_io import set_checkpoint_io
from nrt_lightning.strategies.checkpoints import remote
from nrt_lightning.strategies.position import Position, finish, go_on, read_position, settle, window_begin
from nrt_lightning.structures import Prompts, WindowStep

log = logging.getLogger(__name__)
PARTS = ("optimizer_states", "lr_schedulers", "global_step")
KEY = "nrt_lightning_position"  # in a checkpoint


class ExactResume(Callback):
    """Makes a resumed run equal the uninterrupted one, after any number of resumes.

    - Saves of `ModelCheckpoint` that fall due inside a rollout window, or inside an optimizer step of several
      micro-batches, wait for its end.
    - A checkpoint that is saved inside one all the same says so. A run that is resumed from it samples the window anew,
      and warns.
    - Lightning's counters, which a checkpoint holds half increased, are settled before they are restored. A validation
      or the end of an epoch that was still to come at the save is done after the resume.

    The modules of this package and `OnPolicyRollout` add it.
    """

    def __init__(self) -> None:
        self.window: WindowStep | None = None  # of the newest micro-batch, if it has one
        self.resumed: Position | None = None
        self.saved: dict[str, Any] = {}  # what the checkpoint has from `on_save_checkpoint`
        self.validating = False
        self.settings: dict[str, Any] = {}  # of this run
        self.waiting: list[WaitingSaves] = []
        self.samples = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            directory = getattr(callback, "dirpath", None)
            if isinstance(callback, Checkpoint) and directory and not remote(directory):
                check_parent(Path(directory, "last.ckpt"), f"{type(callback).__name__}.dirpath")
        self.samples = any(hasattr(callback, "fill_window") for callback in callbacks)
        self.window, self.resumed, self.validating = None, None, False
        found = (callback for callback in callbacks if isinstance(callback, ModelCheckpoint))
        self.waiting = [WaitingSaves(callback, self.must_wait) for callback in found]

    def must_wait(self, trainer: Any) -> bool:
        """True if a save must wait for the end of the window. At the end of training there is nothing to wait for."""
        ends = trainer.should_stop and trainer.fit_loop._can_stop_early
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        return not ends and not between_windows(trainer, self.window)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.samples and isinstance(batch, Prompts):
            self.window = batch.window

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validating = not trainer.sanity_checking

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validating = False

    # Checkpoints

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        metrics = {k: v.detach().cpu().clone() for k, v in trainer.callback_metrics.items() if torch.is_tensor(v)}
        exact, begin = between_windows(trainer, self.window), window_begin(trainer, self.window)
        checkpoint[KEY] = {"micro_batches": micro_batches_done(trainer), "begin": begin, "exact": exact}
        checkpoint[KEY] |= {"metrics": metrics, "unlogged": unlogged(trainer), "settings": self.settings}
        checkpoint[KEY] |= {"validating": self.validating, "history": history_file(trainer)}
        if not exact and trainer.is_global_zero:
            log.warning(
                "A checkpoint is saved inside a rollout window or an optimizer step: a run that is resumed from it "
                "samples the window anew, and does not equal this one from there on."
            )

    @override
    def on_load_checkpoint(self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.resumed = None
        if trainer.state.fn != TrainerFn.FITTING:
            return
        loops = checkpoint.get("loops", {}).get("fit_loop")
        check_optimizer(checkpoint, trainer.ckpt_path, whole=trainer.strategy.lightning_restore_optimizer)
        if not loops:
            raise InputError(
                f"ckpt_path={str(trainer.ckpt_path)!r} holds no position of training, so it cannot be resumed. Give "
                "another checkpoint, or load its weights into a new run."
            )
        data: dict[str, Any] = checkpoint.get(type(trainer.datamodule).__qualname__, {})
        try:
            steps = data.get("epoch_steps") if isinstance(trainer.datamodule, QADataModule) else None
            position = read_position(loops, trainer.accumulate_grad_batches, steps)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise damaged(trainer.ckpt_path, error) from error
        position.validate |= checkpoint.get(KEY, {}).get("validating", False) and not position.lost
        settle(loops, position)
        if "processed" in data:
            data["processed"] = position.done
        follow_moved(trainer, checkpoint.get("callbacks", {}))
        trainer.fit_loop._combined_loader = None  # a strategy that restores late has made one that begins at 0
        finish(trainer, position)
        self.resumed, self.saved = position, checkpoint.get(KEY, {})
        size = data.get("window", 1) * data.get("window_epochs", 1) if self.samples else 1
        inside = position.step % size or position.lost or not checkpoint.get(KEY, {}).get("exact", True)
        if inside and trainer.is_global_zero:
            log.warning(
                "%s was saved inside a rollout window or an optimizer step (micro-batch %d of the run). The window is "
                "sampled anew with these weights: the run goes on, but does not equal an uninterrupted one.",
                trainer.ckpt_path, position.done + position.lost,
            )  # fmt: skip
        if isinstance(trainer.datamodule, QADataModule):  # it does resume
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.settings = settings_of(trainer)

    @override
    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        for waiting in self.waiting:
            waiting.steps = trainer.global_step
        if self.resumed is None:
            begin(trainer)
            return
        if trainer.is_global_zero:
            report_changed(self.saved.get("settings", {}), self.settings, trainer.ckpt_path)
        last, before = self.saved.get("unlogged", {}), self.saved.get("history")
        go_back(trainer, self.resumed.logged, last, before, validate=self.resumed.validate)
        trainer._logger_connector._callback_metrics.update(self.saved.get("metrics", {}))
        go_on(trainer, self.resumed)

    @override
    def on_train_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        if (
            self.resumed is not None and self.resumed.ended
        ):  # no micro-batch has told Lightning that the restart is over
            trainer.fit_loop.epoch_loop.restarting = False
        self.resumed = None


def follow_moved(trainer: Any, states: dict[Any, Any]) -> None:
    """Let the checkpoints in a folder that has moved know their files, so that a resumed run replaces its own.

    Args:
        trainer: that resumes.
        states: of the callbacks in the checkpoint, changed in place.
    """
    if remote(trainer.ckpt_path):
        return
    place = Path(str(trainer.ckpt_path)).absolute().parent
    for callback in trainer.callbacks:
        state, here = states.get(callback.state_key), getattr(callback, "dirpath", None)
        if not isinstance(callback, ModelCheckpoint) or not state or not here or Path(here).absolute() != place:
            continue
        before = str(state.get("dirpath"))
        if before == str(here):
            continue

        def moved(path: str, before: str = before, here: Any = here) -> str:
            return str(Path(here, os.path.relpath(path, before))) if Path(path).is_relative_to(before) else path

        state["dirpath"] = here
        state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = moved(state[name])


def damaged(path: Any, error: Exception) -> InputError:
    """The error for a checkpoint whose position cannot be read."""
    return InputError(
        f"ckpt_path={str(path)!r} holds a position of training that is damaged ({type(error).__name__}: {error}). Give "
        "another checkpoint, or load its weights into a new run."
    )


def check_optimizer(checkpoint: dict[str, Any], path: Any, *, whole: bool = True) -> None:
    """Check that a checkpoint has the state of its optimizers.

    Args:
        checkpoint: its contents.
        path: of the checkpoint.
        whole: False if the strategy reads optimizers from elsewhere.

    Raises:
        InputError: names the checkpoint and what it lacks.
    """
    missing = [name for name in PARTS if name not in checkpoint and whole]
    if missing and checkpoint.get("loops"):
        raise InputError(
            f"ckpt_path={str(path)!r} has no {' and no '.join(missing)}, so it cannot be resumed. Give another "
            "checkpoint, or load its weights into a new run."
        )
    for state in checkpoint.get("optimizer_states", []):
        keeps = any("betas" in group or group.get("momentum") for group in state["param_groups"])
        if keeps and not state["state"] and checkpoint.get("global_step"):
            raise InputError(
                f"ckpt_path={str(path)!r} has an optimizer without state after {checkpoint['global_step']} steps, so "
                "it cannot be resumed. Give another checkpoint, or load its weights into a new run."
            )


def add_exact_resume(trainer: Any) -> None:
    """Add the callbacks that keep a run safe to a trainer, unless it has them; this one before its checkpoints."""
    keep_metrics(trainer)
    set_checkpoint_io(trainer)
    callbacks: list[Callback] = trainer.callbacks
    kind: type[Callback]
    for kind in (NonFiniteGuard, ExactResume):
        if not any(isinstance(callback, kind) for callback in callbacks):
            first = (number for number, callback in enumerate(callbacks) if isinstance(callback, Checkpoint))
            callbacks.insert(next(first, len(callbacks)), kind())
    for kind in (SaveOnSignal, NameOutOfMemory, StepAxis, NothingTrained):
        if not any(isinstance(callback, kind) for callback in callbacks):
            callbacks.append(kind())
