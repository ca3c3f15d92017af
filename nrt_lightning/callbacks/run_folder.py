"""The folder of a run, `trainer.default_root_dir`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError


def in_run_folder(path: str | Path, folder: str | Path | None) -> Path:
    """The place of an output of a run.

    A relative path is relative to the run's folder. A path that already lies in the folder is kept, so that a saved
    configuration can be read back.

    Args:
        path: as it is configured.
        folder: the trainer's `default_root_dir`; None for the current directory.

    >>> str(in_run_folder("model", "runs/mine")), str(in_run_folder("runs/mine/model", "runs/mine"))
    ('runs/mine/model', 'runs/mine/model')
    >>> str(in_run_folder(".", "runs/mine")), str(in_run_folder("/data/model", "runs/mine"))
    ('runs/mine', '/data/model')
    """
    given, root = Path(path).expanduser(), Path(folder or ".").expanduser()
    if given.is_absolute() or Path(os.path.abspath(given)).is_relative_to(os.path.abspath(root)):
        return given
    return root / given


def check_parent(path: Path, setting: str) -> None:
    """Check that a file or directory can be created, without creating anything.

    Raises:
        InputError: names the setting and the path.
    """
    if (blocked := unwritable(path.absolute().parent)) is not None:
        raise InputError(f"{setting}={path} cannot be written ({blocked}). Give another.")


def unwritable(directory: Path) -> Path | None:
    """The directory, or its nearest parent that exists, if nothing can be written there; None if it can."""
    while not directory.exists():
        directory = directory.parent
    return None if directory.is_dir() and os.access(directory, os.W_OK) else directory


def begins(trainer: Any, stage: str) -> bool:
    """True in the `setup` of a new run: callbacks that are used again forget the run before."""
    return stage == "fit" and trainer.global_step == 0


def leaves_nothing(trainer: Any) -> bool:
    """True under `fast_dev_run`, which writes no files."""
    return bool(trainer.fast_dev_run)
