"""What a data module refuses: settings out of range, a trainer that it does not fit, another order than before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from nrt_lightning.data.datamodule import QADataModule

LEAST = dict.fromkeys(("batch_size", "window", "window_epochs", "eval_batch_size", "passes"), 1)
LEAST |= {"val_rows": 0, "num_workers": 0}


def check_settings(data: QADataModule) -> None:
    """Refuse settings out of range.

    Raises:
        InputError: with the setting.
    """
    for name, lowest in LEAST.items():
        if getattr(data, name) < lowest:
            raise InputError(f"{name}={getattr(data, name)} is too small. Give at least {lowest}.")
    for split, rows in data.max_rows.items():
        if rows is not None and rows < 1:
            raise InputError(f"max_{split}_rows={rows} leaves no rows. Give at least 1, or null for all.")
    if data.val_rows and data.sources["val"] is not None:
        raise InputError(f"val_rows={data.val_rows} takes rows from `train`, but `val` is given too. Set one of them.")


def check_trainer(data: QADataModule, trainer: Any) -> None:
    """Refuse a trainer under which windows would not be what they are meant to be.

    Raises:
        InputError: with the trainer's setting.
    """
    if trainer.overfit_batches > 0:
        raise InputError(
            f"overfit_batches={trainer.overfit_batches} would replace the sampler that makes the windows. "
            "Set max_train_rows of the data instead."
        )
    accumulated = trainer.accumulate_grad_batches
    if data.window % accumulated and accumulated % (data.window * data.window_epochs):
        raise InputError(
            f"accumulate_grad_batches={accumulated} and window={data.window} do not fit: an optimizer step would "
            "mix parts of windows. Make one a multiple of the other."
        )


def check_resumed(before: dict[str, int], now: dict[str, int]) -> None:
    """Refuse to go on in another order.

    Args:
        before: what the order of the checkpoint's run hung on.
        now: the same of this run.

    Raises:
        InputError: with what differs.
    """
    changed = {name: old for name, old in before.items() if now.get(name, old) != old}
    if changed:
        differences = ", ".join(f"{name}={old} (now {now[name]})" for name, old in changed.items())
        raise InputError(
            f"The checkpoint's run had other data settings: {differences}; which rows it has seen cannot be told. "
            "Restore them (on another number of processes, batch_size so that the product is the same), or load "
            "only the weights into a new run."
        )
