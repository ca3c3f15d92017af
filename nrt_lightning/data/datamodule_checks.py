"""Checks of `QADataModule`: ranges of settings, and the micro-batch order of a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.structures import Row

LEAST = dict.fromkeys(("batch_size", "window", "window_epochs", "eval_batch_size", "passes"), 1)
LEAST |= {"val_rows": 0, "num_workers": 0}


def check_settings(settings: Mapping[str, Any], max_rows: Mapping[str, int | None]) -> None:
    """Check the ranges of the settings.

    Args:
        settings: settings of the data module by name.
        max_rows: limit of each split; None for all rows.

    Raises:
        InputError: a setting is out of range.
    """
    for name, least in LEAST.items():
        check_at_least(f"data.{name}", settings[name], least)
    for split, rows in max_rows.items():
        if rows is not None:
            check_at_least(f"data.max_{split}_rows", rows, 1)


def check_answered(rows: list[Row], split: str) -> list[Row]:
    """The rows, if all have answers.

    Raises:
        InputError: names the first row without one.
    """
    unanswered = next((row for row in rows if row.answer is None), None)
    if unanswered is not None:
        raise InputError(f"{split}: {unanswered.origin} has no answer. Only `predict` takes rows without answers.")
    return rows


def check_resumed(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Check that a resumed run has the micro-batch order of its checkpoint.

    Args:
        before: `WindowSampler.order` of the checkpoint's run.
        now: `WindowSampler.order` of this run.

    Raises:
        InputError: names all settings that differ.
    """
    changed = {name: old for name, old in before.items() if now.get(name, old) != old}
    if changed:
        differences = ", ".join(f"{name}={old} (now {now[name]})" for name, old in changed.items())
        raise InputError(
            f"The checkpoint was written with other data settings: {differences}. Restore them (on another number of "
            "processes, change batch_size to keep the product), or load only the weights into a new run."
        )
