"""Keeps other libraries' advertisements and deprecations, which a user cannot act on, out of the output."""

from __future__ import annotations

import logging
import warnings

ADVERTISED = ("litlogger", "litmodels")
WARNINGS = (  # beginnings of messages
    r"\s*By default only one JsonargparseDeprecationWarning",
    r"\s*``ArgumentParser\.add_instantiator`` was deprecated",
    r"\s*``instantiate_classes`` was deprecated",
    r"\s*skip_none parameter was deprecated",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"You have overridden `on_before_batch_transfer`",  # the modules' passes batches of `Prompts` through
    r"`torch\.jit\.script_method` is deprecated",
    r"Checkpoint directory .* exists and is not empty",  # checkpoints get the next free name, which is printed
)


def is_no_advertisement(record: logging.LogRecord) -> bool:
    """False for tips that recommend a product."""
    message = record.getMessage()
    return not ("Tip:" in message and any(name in message for name in ADVERTISED))


def keep_quiet() -> None:
    """Filter Lightning's advertisements and the deprecations between Lightning, torch and jsonargparse."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if is_no_advertisement not in log.filters:
        log.addFilter(is_no_advertisement)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)


keep_quiet()
