"""Checkpoint files that a kill, a full disk or a flipped bit cannot take away."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.strategies.checkpoint_contents import check_contents, check_weights, name_faults
from nrt_lightning.strategies.checkpoints import remote, untrusted
from nrt_lightning.strategies.manifest import damage_of_directory

log = logging.getLogger(__name__)
POSITIONAL = 2  # the number of `weights_only` among the further arguments of `load_checkpoint`


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a good one exists at every moment, and reads only undamaged ones.

    A checkpoint is written beside its file, with a checksum of every part, synchronized to the disk, and put in the
    place of the one before at once. The one before is kept as `.NAME.before`. A checkpoint that is missing or damaged
    is replaced by it, with a warning. Weights that are not finite are neither written nor read.

    The modules of this package set it, unless the trainer has another `CheckpointIO`. Files of other file systems
    (`s3://`) are written and read as Lightning does.

    Args:
        keep_before: keep the checkpoint of the same name that was written before.
    """

    def __init__(self, *, keep_before: bool = True) -> None:
        self.keep_before = keep_before

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        check_weights(checkpoint, path)
        if remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        remove(part)
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        put_in_place(part, target, keep_before=self.keep_before)

    @override
    def load_checkpoint(self, path: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        only = settings.get("weights_only") is not False
        if len(args) < POSITIONAL:  # Lightning's default for a URL is to run the file's code
            settings["weights_only"] = only
        found = path if remote(path) else undamaged(Path(path), weights_only=only)
        try:
            checkpoint = super().load_checkpoint(found, *args, **settings)
        except pickle.UnpicklingError as error:
            raise InputError(untrusted(f"The checkpoint {found}", error)) from None
        check_contents(checkpoint, found)
        return checkpoint

    @override
    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        if not remote(path) and before_of(Path(path)).exists():
            super().remove_checkpoint(before_of(Path(path)))


def before_of(path: Path) -> Path:
    """Where the checkpoint of the same name that was written before is kept."""
    return path.with_name(f".{path.name}.before")


def remove(path: Path) -> None:
    """Remove a file, a link or a directory, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_in_place(part: Path, target: Path, *, keep_before: bool) -> None:
    """Give a written file its name, at once; a link or file of that name is replaced."""
    before = before_of(target)
    if keep_before and target.is_file() and not target.is_symlink():
        beside = before.with_name(f"{before.name}.part")
        remove(beside)
        if before.is_dir():  # of a run whose checkpoints were directories
            remove(before)
        try:
            os.link(target, beside)
            os.replace(beside, before)
        except OSError:  # a file system without hard links
            os.replace(target, before)
    os.replace(part, target)
    synchronize(target.parent)


def synchronize(directory: Path) -> None:
    """Make sure that the names in a directory are on disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # not every file system can
        pass
    finally:
        os.close(handle)


def link_in_place(trainer: Any, path: str, link: str) -> None:
    """Let a symbolic link point to a checkpoint, at once; in place of `ModelCheckpoint._link_checkpoint`."""
    if trainer.is_global_zero and os.path.abspath(path) != os.path.abspath(link):
        beside = Path(link).with_name(f".{Path(link).name}.part")
        remove(beside)
        beside.symlink_to(os.path.relpath(path, os.path.dirname(link)))
        if os.path.isdir(link) and not os.path.islink(link):  # a checkpoint directory
            remove(before_of(Path(link)))
            os.replace(link, before_of(Path(link)))
        os.replace(beside, link)
        synchronize(beside.parent)
    trainer.strategy.barrier()


def damage(path: Path, *, weights_only: bool = True) -> str | None:
    """What is wrong with a checkpoint file; None if nothing is known to be."""
    if not path.exists():
        return "it does not exist"
    if path.is_dir():
        return damage_of_directory(path)
    try:
        if not zipfile.is_zipfile(path):
            torch.load(path, weights_only=weights_only, map_location="meta")  # of an old format, or damaged
            return None
        with zipfile.ZipFile(path) as file:
            if not any(name.endswith("/data.pkl") for name in file.namelist()):
                return "it is an archive of something else"
            bad = file.testzip()  # compares the checksums that torch.save has written
    except Exception as error:  # torch raises many kinds
        return f"it cannot be read ({type(error).__name__})"
    return None if bad is None else f"the checksum of {bad.partition('/')[2]} differs"


def undamaged(path: Path, *, weights_only: bool = True) -> Path:
    """The checkpoint, or the one of its name that was written before, if it is missing or damaged.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    problem = damage(path, weights_only=weights_only)
    if problem is None:
        return path
    before = before_of(path)
    if damage(before, weights_only=weights_only) is None:
        log.warning("%s is not used: %s. %s, which was written before, is used.", path, problem, before)
        return before
    raise InputError(f"The checkpoint {path} cannot be used: {problem}. Give another checkpoint.")


def set_checkpoint_io(trainer: Any) -> None:
    """Let a trainer write checkpoints safely, unless it has another `CheckpointIO`."""
    strategy = trainer.strategy
    if type(getattr(strategy, "_checkpoint_io", None)) in (type(None), TorchCheckpointIO):
        strategy._checkpoint_io = SafeCheckpointIO()
    name_faults(strategy)
