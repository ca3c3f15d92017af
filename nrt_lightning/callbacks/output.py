"""What a run shows by default, with and without a terminal."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary, RichProgressBar, TQDMProgressBar
from transformers.utils import logging

import nrt_lightning.callbacks.quiet  # noqa: F401  (filters what other libraries print)
from nrt_lightning.callbacks.dashboard import Dashboard
from nrt_lightning.callbacks.hyperparameters import Hyperparameters
from nrt_lightning.callbacks.known_monitors import KnownMonitors
from nrt_lightning.callbacks.one_line_bar import OneLineBar
from nrt_lightning.callbacks.plain_summary import PlainSummary
from nrt_lightning.callbacks.progress_lines import ProgressLines, ValidationTable


def has_terminal() -> bool:
    """True if the output is a terminal or a notebook, which can show a progress bar."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def output_callbacks(trainer: Any) -> list[Callback]:
    """The callbacks for loggers and output that a trainer lacks. Its default summary and progress bar are replaced."""
    callbacks = trainer.callbacks
    always = (Dashboard, Hyperparameters, KnownMonitors)
    new: list[Callback] = [kind() for kind in always if not any(isinstance(c, kind) for c in callbacks)]
    for index, callback in enumerate(callbacks):
        if type(callback) in (ModelSummary, RichModelSummary):
            callbacks[index] = PlainSummary(callback._max_depth)
    bar, lines = trainer.progress_bar_callback, any(isinstance(c, ProgressLines) for c in callbacks)
    if bar is None or lines or any(isinstance(c, ValidationTable) for c in callbacks):
        return new
    if not has_terminal():
        logging.disable_progress_bar()  # of the weights that are read
        return [*new, ProgressLines()] if is_default(bar) or isinstance(bar, OneLineBar) else new
    if is_default(bar):
        replacement = OneLineBar()
        callbacks[callbacks.index(bar)] = replacement
        replacement._trainer = trainer
    return [*new, ValidationTable()]


def is_default(bar: Any) -> bool:
    """True if a progress bar is the one that a trainer adds by itself."""
    if type(bar) is RichProgressBar:
        plain = RichProgressBar()
        return (bar.refresh_rate, bar.theme, bar._leave) == (plain.refresh_rate, plain.theme, plain._leave)
    return type(bar) is TQDMProgressBar and bar.refresh_rate == TQDMProgressBar().refresh_rate
