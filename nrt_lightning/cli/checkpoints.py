"""Checkpoints in a run's folder: the one that `--ckpt_path=auto`, `last` or `best` means, and those that are kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from nrt_lightning.callbacks.exact_resume import KEY as POSITION
from nrt_lightning.callbacks.run_folder import in_run_folder
from nrt_lightning.errors import InputError
from nrt_lightning.strategies.checkpoint_io import before_of, damage, undamaged
from nrt_lightning.strategies.checkpoints import read_metadata, remote

log = logging.getLogger(__name__)

FOLDER = "checkpoints"  # in the run's folder
FILES = ("*.ckpt", ".*.ckpt.before")  # and those that were written before under the same name
WORDS = ("auto", "last", "best")
REGISTRY = re.compile(r"registry(:|$)", re.IGNORECASE)  # a model of Lightning's registry


@dataclass
class Found:
    """A checkpoint that can be read, and its contents without the values of the tensors."""

    path: Path
    saved: dict[str, Any]

    @property
    def order(self) -> tuple[int, bool, float]:
        """Optimizer steps; among equals, those at the end of a window, then the time of writing."""
        return int(self.saved["global_step"]), self.exact, self.path.stat().st_mtime

    @property
    def exact(self) -> bool:
        """False if it was saved inside a rollout window, so that a resumed run cannot equal the uninterrupted one."""
        return bool(self.saved.get(POSITION, {}).get("exact", True))

    @property
    def resumable(self) -> bool:
        """False if it holds weights alone."""
        return "lr_schedulers" in self.saved and bool(self.saved.get("loops"))


def find_checkpoint(command: str, config: Any, setting: str = "ckpt_path") -> str | None:
    """The checkpoint that `ckpt_path` means: a path as it is given, or the one that `auto`, `last` or `best` names.

    Args:
        command: that reads it.
        config: settings of the command.
        setting: name of the option that gave it, for messages.

    Returns:
        Its path; None if none is given, or if `fit` starts from the beginning.

    Raises:
        InputError: there is none to read.
    """
    word, only = config.get("ckpt_path"), config.get("weights_only") is not False
    if word == "hpc":
        check_hpc(config.trainer.get("default_root_dir"), setting)
    if word not in WORDS:
        return whole(word, weights_only=only)
    directories = checkpoint_directories(config.trainer, f"{setting}={word!r}")
    places = " or ".join(map(str, directories))
    found = checkpoints_in(directories, config.get("model"), weights_only=only)
    if command == "fit":
        found = to_resume(found)
    found = from_undamaged(found, weights_only=only)
    if not found:
        if word == "auto" and command == "fit":
            tell(f"ckpt_path=auto: no checkpoint in {places}. Training starts from the beginning.")
            return None
        raise InputError(
            f"{setting}={word!r}: no checkpoint in {places}. Train first, set trainer.default_root_dir to the folder "
            "of the run, or give the path of a checkpoint."
        )
    path, step = found[0].path, found[0].order[0]
    if word == "best":
        path = undamaged(best(found, places, setting), weights_only=only)
        step = int(read_metadata(path, weights_only=only)["global_step"])
    tell(f"{setting}={word}: {'resuming' if command == 'fit' else 'reading'} {path} (step {step})")
    return str(path)


def checkpoint_directories(trainer: Any, word: str) -> list[Path]:
    """Where the checkpoints of these settings of the trainer are written.

    Raises:
        InputError: they are on another file system.
    """
    callbacks = trainer.get("callbacks") or []
    settings = [c.get("init_args") or {} for c in (callbacks if isinstance(callbacks, list) else [callbacks])]
    given = [s["dirpath"] for s in settings if "dirpath" in s]
    if elsewhere := next((path for path in given if path and remote(path)), None):
        raise InputError(
            f"{word}: the checkpoints are in {elsewhere}, where they are not looked for. Give the path of one, as "
            f"ckpt_path={elsewhere}/last.ckpt."
        )
    places = [in_run_folder(path or FOLDER, trainer.get("default_root_dir")) for path in given or [FOLDER]]
    return list(dict.fromkeys(places))


def checkpoints_in(directories: Sequence[Path], model: Any, *, weights_only: bool = True) -> list[Found]:
    """Checkpoints of this model in the directories, the newest first: that of the most optimizer steps."""
    found = []
    for path in sorted(path for directory in directories for pattern in FILES for path in directory.rglob(pattern)):
        try:
            saved = read_metadata(path, weights_only=weights_only)
            saved["global_step"]
        except Exception as error:  # torch raises many kinds
            log.warning("%s is no checkpoint that can be read, and is left out (%s).", path, type(error).__name__)
            continue
        if same_model(saved.get("hyper_parameters", {}), model):
            found.append(Found(path, saved))
        else:
            log.warning("%s is of another model and is left out.", path)
    return sorted(found, key=lambda one: one.order, reverse=True)


def from_undamaged(found: list[Found], *, weights_only: bool = True) -> list[Found]:
    """The checkpoints from the first undamaged one on; the damaged ones are warned of."""
    for number, one in enumerate(found):
        if (problem := damage(one.path, weights_only=weights_only)) is None:
            return found[number:]
        log.warning("%s is not used: %s.", one.path, problem)
    return []


def whole(path: str | None, *, weights_only: bool = True) -> str | None:
    """The checkpoint of this path, or the one written before if it is missing or damaged, with a warning.

    Raises:
        InputError: names the file.
    """
    if path is None or path == "hpc" or REGISTRY.match(path) or remote(path):
        return path
    if not path:
        raise InputError("ckpt_path is empty. Give a checkpoint, 'auto', 'last' or 'best', or leave it out.")
    if not Path(path).exists() and not before_of(Path(path)).exists():
        raise InputError(f"ckpt_path={path!r}: no such file. Give a checkpoint, 'auto', 'last' or 'best'.")
    return str(undamaged(Path(path), weights_only=weights_only))


def check_hpc(folder: str | None, setting: str) -> None:
    """Check that Lightning finds a checkpoint of a SLURM job that it requeued.

    Raises:
        InputError: names the folder.
    """
    folder = folder or "."
    if not remote(folder) and not any(Path(folder).glob("hpc_ckpt_*.ckpt")):
        raise InputError(
            f"{setting}='hpc': no hpc_ckpt_*.ckpt in {folder}; Lightning writes it as it requeues a SLURM job. Give a "
            "checkpoint, 'auto', 'last' or 'best'."
        )


def to_resume(found: list[Found]) -> list[Found]:
    """The checkpoints that a run can be resumed from, the one to resume first.

    That is the newest; or the one before, if the newest was saved inside a window that it begins: from there the run
    is exact.
    """
    for one in found:
        if not one.resumable:
            log.warning("%s holds weights alone and is left out.", one.path)
    found = [one for one in found if one.resumable]
    if found and not found[0].exact:
        begin = found[0].saved[POSITION]["begin"]
        for one in found:
            if one.exact and one.saved.get(POSITION, {}).get("micro_batches", -1) >= begin:
                log.warning("%s is newer, but was saved inside a window; %s is exact.", found[0].path, one.path)
                return [one, *(other for other in found if other is not one)]
    return found


def same_model(saved: dict[str, Any], model: Any) -> bool:
    """True if a checkpoint's settings name the same module, base, adapter and quantization; or none of them."""
    if model is None or "_class_path" not in saved:  # built in Python
        return True
    return parts(saved["_class_path"], saved) == parts(model.class_path, model.get("init_args") or {})


def parts(class_path: str, settings: Any) -> tuple[Any, ...]:
    """What must be equal for a checkpoint to be loaded."""
    policy = (settings.get("policy") or {}).get("init_args") or {}
    choices = (policy.get("adapter") or {}, policy.get("quantization") or {})
    return (class_path, policy.get("model"), *(choice.get("class_path") for choice in choices))


def best(found: Sequence[Found], places: str, setting: str = "ckpt_path") -> Path:
    """The best checkpoint, by the newest one's record of it.

    Raises:
        InputError: no callback kept one by a metric, or its file is gone.
    """
    for one in found:
        for state in one.saved.get("callbacks", {}).values():
            if not isinstance(state, dict) or not state.get("monitor") or not state.get("best_model_path"):
                continue
            recorded = Path(state["best_model_path"])
            for path in (one.path.with_name(recorded.name), recorded):  # the folder may have moved
                if path.exists():
                    return path
    raise InputError(
        f"{setting}='best': no checkpoint in {places} was kept by a metric. Add the callback nrt_lightning.BestAndLast "
        "before training, or give 'last' or the path of a checkpoint."
    )


def tell_kept(trainer: Any) -> None:
    """Print the paths of the checkpoints that a run has kept."""
    for callback in trainer.callbacks:
        best_path, last_path = (getattr(callback, f"{name}_model_path", "") for name in ("best", "last"))
        if not isinstance(callback, Checkpoint) or trainer.fast_dev_run:
            continue
        monitor, score = getattr(callback, "monitor", None), getattr(callback, "best_model_score", None)
        if best_path and monitor and score is not None:
            tell(f"best checkpoint: {shown(best_path)} ({monitor} {float(score):.3f})")
        if last_path or (best_path and not monitor):
            tell(f"last checkpoint: {shown(last_path or best_path)}")


def shown(path: str) -> str:
    """A path relative to the current directory, if it lies in it."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


@rank_zero_only
def tell(text: str) -> None:
    """Print a line in the first process."""
    print(text, flush=True)
