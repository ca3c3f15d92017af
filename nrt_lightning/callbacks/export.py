"""Export of the trained policy to a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.export import ExportForm, RunRecord, check_target, export_policy


class ExportPolicy(Callback):
    """Writes weights, tokenizer, chat template, generation config and model card at the end of training.

    Args:
        directory: directory to write; must be empty or missing.
        form: weights to write: `WholeModel`, `AdapterFiles` or `Merged`; null for `Merged` if there is an adapter and
            `WholeModel` otherwise.
        overwrite: replace the contents of the directory.

    Raises:
        InputError: the directory is not empty or cannot be written, or the policy does not support the form.
    """

    def __init__(self, directory: str, form: ExportForm | None = None, *, overwrite: bool = False) -> None:
        self.directory = Path(directory).expanduser()
        self.form = form
        self.overwrite = overwrite

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        policy: Any = pl_module.policy
        if stage == "fit" and self.form is not None:
            self.form.check(policy)
        if stage == "fit" and trainer.is_global_zero:
            check_target(self.directory, overwrite=self.overwrite)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        policy: Any = pl_module.policy
        if trainer.is_global_zero or policy.sharding.active:  # all processes gather sharded weights
            export_policy(policy, self.directory, self.form, RunRecord.of(trainer, pl_module), overwrite=self.overwrite)
