"""What a data module refuses: settings out of range, a trainer that it does not fit, another order than before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nrt_lightning.errors import InputError

LEAST = dict.fromkeys(("batch_size", "window", "window_epochs", "eval_batch_size", "passes"), 1)
LEAST |= {"val_rows": 0, "num_workers": 0}


def check_settings(settings: Mapping[str, int], max_rows: Mapping[str, int | None]) -> None:
    """Refuse settings out of range.

    Args:
        settings: of the data module, by name.
        max_rows: of each split; None for all rows.

    Raises:
        InputError: with the setting.
    """
    for name, lowest in LEAST.items():
        if settings[name] < lowest:
            raise InputError(f"{name}={settings[name]} is too small. Give at least {lowest}.")
    for split, rows in max_rows.items():
        if rows is not None and rows < 1:
            raise InputError(f"max_{split}_rows={rows} leaves no rows. Give at least 1, or null for all.")


def check_trainer(window: int, window_epochs: int, trainer: Any) -> None:
    """Refuse a trainer whose steps would not line up with the windows.

    Args:
        window: micro-batches of a window.
        window_epochs: how often a window is trained on.
        trainer: with its `overfit_batches` and `accumulate_grad_batches`.

    Raises:
        InputError: with the trainer's setting.
    """
    if trainer.overfit_batches > 0:
        raise InputError(
            f"overfit_batches={trainer.overfit_batches} would replace the sampler that makes the windows. "
            "Set max_train_rows of the data instead."
        )
    accumulated = trainer.accumulate_grad_batches
    if window % accumulated and accumulated % (window * window_epochs):
        raise InputError(
            f"accumulate_grad_batches={accumulated} and window={window} do not fit: an optimizer step would "
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
