"""Export of the trained policy to a Hugging Face directory."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import in_run_folder, leaves_nothing
from nrt_lightning.export import ExportForm, RunRecord, check_target, export_policy

log = logging.getLogger(__name__)

EXPORTED = ("config.json", "adapter_config.json")  # one of them is in every export


class ExportPolicy(Callback):
    """Writes weights, tokenizer, chat template, generation config and model card at the end of training.

    Under `fast_dev_run` nothing is written.

    Args:
        directory: directory to write, relative to the run's folder. If it contains the export of an earlier run in
            this folder, that one is kept and the next free name is used: `model-v1` after `model`. A run that is
            resumed from a checkpoint replaces its own export. An absolute path must be empty or missing.
        form: weights to write: `WholeModel`, `AdapterFiles` or `Merged`; null for `Merged` if there is an adapter and
            `WholeModel` otherwise.
        overwrite: replace the contents of the directory.

    Raises:
        InputError: the directory contains something else or cannot be written, or the policy does not support the form.
    """

    def __init__(self, directory: str, form: ExportForm | None = None, *, overwrite: bool = False) -> None:
        self.directory = Path(directory).expanduser()
        self.form = form
        self.overwrite = overwrite
        self._written: str | None = None  # by this run, from its checkpoint
        self._target: Path | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        policy: Any = pl_module.policy
        if stage == "fit" and self.form is not None:
            self.form.check(policy)
        if stage == "fit" and trainer.is_global_zero:
            check_target(self.target(trainer), overwrite=self.overwrite)

    def target(self, trainer: Trainer) -> Path:
        """The directory to write: the configured one, or the next free name if an earlier run has exported there."""
        directory = in_run_folder(self.directory, trainer.default_root_dir)
        if self.directory.is_absolute() or self.overwrite:
            return directory
        names = (directory.with_name(f"{directory.name}-v{number}") for number in count(1))
        while is_export(directory) and str(directory.absolute()) != self._written:
            directory = next(names)
        return directory

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"written": None if self._target is None else str(self._target.absolute())}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._written = state_dict["written"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._target = self.target(trainer)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        policy: Any = pl_module.policy
        if leaves_nothing(trainer):
            return
        target = self.target(trainer)
        own = str(target.absolute()) == self._written
        if own and is_export(target) and trainer.is_global_zero:
            log.warning("%s is replaced: the resumed run exported there before.", target)
        if trainer.is_global_zero or policy.sharding.active:  # all processes gather sharded weights
            overwrite = self.overwrite or own
            export_policy(policy, target, self.form, RunRecord.of(trainer, pl_module), overwrite=overwrite)
        if trainer.is_global_zero:
            if target.name != self.directory.name:
                log.warning("%s holds the export of an earlier run and is kept.", target.with_name(self.directory.name))
            print(f"exported to {target}")


def is_export(directory: Path) -> bool:
    """True if a directory contains a model."""
    return any((directory / name).is_file() for name in EXPORTED)
