"""Checks of `QADataModule`: ranges of settings, and the micro-batch order of a resumed run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least, check_fraction
from nrt_lightning.structures import Row

log = logging.getLogger(__name__)

LEAST = dict.fromkeys(("batch_size", "window", "window_epochs", "eval_batch_size", "passes"), 1)
LEAST |= {"num_workers": 0, "max_prompt_tokens": 1, "max_answer_tokens": 2}


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
    check_fraction("data.max_dropped_share", settings["max_dropped_share"])
    for split, rows in max_rows.items():
        if rows is not None:
            check_at_least(f"data.max_{split}_rows", rows, 1)


def check_splits(sources: Mapping[str, Any], held_out: Mapping[str, float]) -> None:
    """Check the numbers of rows that are taken out of `train`.

    Args:
        sources: of each split.
        held_out: rows of `train` for another split: a number, or a fraction below 1.

    Raises:
        InputError: a number is out of range, or the split has a source of its own.
    """
    for split, rows in held_out.items():
        check_at_least(f"data.{split}_rows", rows, 0)
        if rows > 1 and rows != int(rows):
            raise InputError(f"data.{split}_rows={rows}: give a number of rows, or a fraction below 1.")
        if rows and sources[split] is not None:
            raise InputError(
                f"data.{split}_rows={rows} takes rows from `train`, but `{split}` is set too. Set only one."
            )


def checked_order(before: Mapping[str, Any], order: Mapping[str, int], rows: Sequence[Row]) -> dict[str, Any]:
    """What fixes the micro-batches of a run: its order, which a resumed run must share, and a digest of the rows.

    Args:
        before: what this function returned in the checkpoint's run; empty if none is resumed.
        order: `WindowSampler.order` of this run.
        rows: of this run. Others than the checkpoint's are warned of.

    Raises:
        InputError: names all settings of the order that differ.
    """
    changed = {name: old for name, old in before.items() if order.get(name, old) != old}
    if changed:
        differences = ", ".join(f"{name}={old} (now {order[name]})" for name, old in changed.items())
        raise InputError(
            f"The checkpoint was written with other data settings: {differences}. Restore them (on another number of "
            "processes, change batch_size to keep the product), or load only the weights into a new run."
        )
    digest = rows_digest(rows)
    if before.get("rows_digest", digest) != digest:
        log.warning(
            "The training rows are not those of the checkpoint: there are as many, but texts or their order differ. "
            "The run goes on with the rows of now."
        )
    return dict(order) | {"rows_digest": digest}


def rows_digest(rows: Sequence[Row]) -> str:
    """A digest of the texts of rows, in their order."""
    found = hashlib.blake2b(digest_size=16)
    for row in rows:
        found.update(json.dumps([row.messages, row.answer], sort_keys=True).encode())
    return found.hexdigest()


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory or hub name. Raises `InputError` if it cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        message = f"data.tokenizer='{name}' cannot be loaded ({error}). Give a directory or hub name."
        raise InputError(message) from error
