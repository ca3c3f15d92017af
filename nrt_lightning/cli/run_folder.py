"""One folder for everything that a run writes, and a saved configuration that replaces no other file."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities.model_helpers import is_overridden
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import in_run_folder, leaves_nothing
from nrt_lightning.cli.checkpoints import FOLDER
from nrt_lightning.data import QADataModule
from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)

OUTPUTS = ("dirpath", "save_dir")  # settings of checkpoint callbacks and loggers
WRITTEN = "# Written by nrt-lightning"


def move_into_folder(trainer: Any) -> None:
    """Resolve the relative output paths of checkpoints and loggers against `default_root_dir`, in place.

    Checkpoint callbacks are removed if `enable_checkpointing` is false.
    """
    if trainer.get("enable_checkpointing") is False and trainer.get("callbacks"):
        trainer.callbacks = [
            part for part in parts_of(trainer.callbacks) if not issubclass(class_of(part.class_path), Checkpoint)
        ]
    for part in chain(parts_of(trainer.get("callbacks")), parts_of(trainer.get("logger"))):
        settings = part.get("init_args") or Namespace()
        for name in OUTPUTS:
            if name in settings and "://" not in str(settings[name]):
                path = settings[name] or (FOLDER if name == "dirpath" else ".")
                settings[name] = str(in_run_folder(path, trainer.get("default_root_dir")))


def parts_of(given: Any) -> Iterator[Any]:
    """The classes of a setting that takes one or a list."""
    for part in given if isinstance(given, list) else [given]:
        if isinstance(part, Namespace) and "class_path" in part:
            yield part


def temporary_folder() -> str:
    """A folder that is removed when the process ends, for `fast_dev_run`."""
    folder = tempfile.mkdtemp(prefix="nrt-lightning-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def class_of(path: str) -> type:
    """The class of an import path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def default_checkpoints(trainer: Trainer) -> None:
    """Make the trainer's own checkpoint callback write to the run's folder, whatever the logger.

    Under `fast_dev_run`, Lightning still writes the last checkpoint; this is switched off.
    """
    for callback in trainer.checkpoint_callbacks:
        if leaves_nothing(trainer) and getattr(callback, "save_last", None):
            callback.save_last = False  # type: ignore[attr-defined]
        if getattr(callback, "dirpath", "") is None:
            callback.dirpath = str(Path(trainer.default_root_dir, FOLDER).absolute())  # type: ignore[attr-defined]


class HeldOutRows(Callback):
    """Reads the rows of the test that follows training before the first step."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        missing = data.sources["test"] is None and not data.test_rows if isinstance(data, QADataModule) else not (
            is_overridden("test_dataloader", data) or is_overridden("test_dataloader", pl_module)
        )  # fmt: skip
        if missing:
            raise InputError(
                "ResultsFile tests after training, but data.test is not set. Set it to a file, a directory, a hub name "
                "or a source, or remove ResultsFile from trainer.callbacks."
            )
        if data is not None:
            data.setup("test")


class SaveRunConfig(SaveConfigCallback):
    """Saves the configuration of `fit` as `config.yaml` in the log directory, of other commands under their name.

    Only a file that this class has written, and nobody has changed since, is written over, and never one that was given
    by `--config`. Otherwise the next free name is used: `config-1.yaml`.

    Args:
        parser: that writes the configuration.
        config: that the trainer was built from.
        given: the configuration as it was given; None for `config`.
        command: that is run.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        *args: Any,
        given: Namespace | None = None,
        command: str = "fit",
        **settings: Any,
    ) -> None:
        super().__init__(parser, config, *args, **settings)
        self.given = config if given is None else given
        self.command = command

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.already_saved:
            return
        directory = Path(trainer.log_dir or trainer.default_root_dir)  # the same in all processes
        if trainer.is_global_zero:
            self.write(directory)
            self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def write(self, directory: Path) -> None:
        """Write the configuration under a name that is free."""
        text = self.parser.dump(self.given, skip_none=False)
        directory.mkdir(parents=True, exist_ok=True)
        first = directory / ("config.yaml" if self.command == "fit" else f"config_{self.command}.yaml")
        names = chain([first], (first.with_name(f"{first.stem}-{number}.yaml") for number in count(1)))
        inputs = {os.path.realpath(getattr(path, "absolute", path)) for path in self.given.get("config") or []}
        path = next(name for name in names if os.path.realpath(name) not in inputs and is_free(name))
        path.write_text(f"{WRITTEN} {self.command} {digest(text)}\n{text}", encoding="utf-8")
        if path != first:
            log.warning("%s is not written over: the configuration of this run is in %s.", first, path)


def is_free(path: Path) -> bool:
    """True if a file does not exist, or was written by `SaveRunConfig` and not changed since."""
    if not path.exists():
        return not path.is_symlink()
    try:
        head, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return head.startswith(WRITTEN) and head.endswith(digest(text))


def digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
