"""Callbacks that look at the greedy traces of the first validation rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.samples.records import Record, val_records
from nrt_lightning.strategies import gather_in_order
from nrt_lightning.structures import Prompts


class ValSamples(Callback, ABC):
    """Gets the records of the first validation rows of all processes, after every validation of a fit.

    Several such callbacks in one trainer share the records, which the first of them makes.
    """

    def __init__(self, val_rows: int) -> None:
        self.val_rows = val_rows
        self.collected: list[Record] = []  # of this process, in the validation that runs

    @abstractmethod
    def on_val_records(self, trainer: Trainer, records: list[Record]) -> None:
        """Look at the records, on every process; there is at least one."""

    def sharing(self, trainer: Any) -> list[ValSamples]:
        """The callbacks that this one makes records for: all of the trainer, or none unless it is the first."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return []
        found = [callback for callback in trainer.callbacks if isinstance(callback, ValSamples)]
        return found if found[0] is self else []

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.collected = []

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        most = max((callback.val_rows for callback in self.sharing(trainer)), default=0)
        left = -(-most // trainer.world_size) - len(self.collected)  # every n-th row is this process's
        if left > 0 and isinstance(batch, Prompts) and "texts" in (outputs or {}):
            self.collected += val_records(pl_module, batch, outputs, left)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if sharing := self.sharing(trainer):
            records = gather_in_order(self.collected)
            for callback in sharing:
                if callback.val_rows and records:
                    callback.on_val_records(trainer, records[: callback.val_rows])
            self.collected = []
