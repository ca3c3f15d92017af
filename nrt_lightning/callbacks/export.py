"""The trained policy as a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nrt_lightning.export import ExportForm, RunRecord, check_target, export_policy


class ExportPolicy(Callback):
    """Writes weights, tokenizer, chat template, generation config and model card at the end of training.

    Args:
        directory: where to; must not hold anything.
        form: which weights: `WholeModel`, `AdapterFiles` or `Merged`; null for all, merged where there is an adapter.
        overwrite: replace what the directory holds.

    Raises:
        InputError: the directory holds something already or cannot be written, or the policy has no such form.
    """

    def __init__(self, directory: str, form: ExportForm | None = None, overwrite: bool = False) -> None:
        self.directory = Path(directory).expanduser()
        self.form = form
        self.overwrite = overwrite

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check directory and form, before anything is computed."""
        policy: Any = pl_module.policy
        if stage == "fit" and self.form is not None:
            self.form.check(policy)
        if stage == "fit" and trainer.is_global_zero:
            check_target(self.directory, overwrite=self.overwrite)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        policy: Any = pl_module.policy
        if trainer.is_global_zero or policy.sharding.active:  # sharded weights are gathered by all
            export_policy(policy, self.directory, self.form, RunRecord.of(trainer, pl_module), overwrite=self.overwrite)
