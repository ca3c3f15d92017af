"""Writes the directory of an export."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError
from nrt_lightning.export.card import model_card
from nrt_lightning.export.directories import atomic_directory
from nrt_lightning.export.forms import ExportForm, default_form
from nrt_lightning.export.gathering import whole_policy
from nrt_lightning.export.prompts import reproduces
from nrt_lightning.export.record import ExportRecord, RunRecord, markup_settings
from nrt_lightning.models.policy.vocabulary import unused_ids

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

log = logging.getLogger(__name__)


def check_target(directory: Path, *, overwrite: bool) -> None:
    """Check that a directory can be written and is empty, unless `overwrite`.

    Raises:
        InputError: names the directory and the fix.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"export directory {directory} is a file. Give another.")
    if directory.is_dir() and any(directory.iterdir()) and not overwrite:
        raise InputError(f"export directory {directory} is not empty. Give another, or set overwrite to true.")
    parent = directory.absolute().parent
    while not parent.exists():
        parent = parent.parent
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise InputError(f"export directory {directory} cannot be written ({error}). Give another.") from error


def export_policy(
    policy: Policy,
    directory: str | Path,
    form: ExportForm | None = None,
    record: RunRecord | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a policy as a Hugging Face directory: weights, tokenizer, chat template, generation config, model card.

    An interrupted export leaves the target as it was. Under sharding, all processes must call this, and process 0
    writes.

    Args:
        policy: loaded.
        directory: target directory.
        form: which weights to write; null for all, with an adapter merged.
        record: of the run, for the card and the chat template.
        overwrite: replace an existing directory.

    Returns:
        The directory.

    Raises:
        InputError: the directory is not empty, or the policy does not have this form.

    Example:
        >>> import tempfile
        >>> from nrt_lightning import Policy
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     trained = export_policy(Policy("embedded:registers-base").load(), f"{parent}/trained")
        ...     Policy(str(trained)).marker_is_new
        False
    """
    target, form = Path(directory).expanduser().absolute(), form or default_form(policy)
    form.check(policy)
    whole = whole_policy(policy)
    if whole is not None:
        check_target(target, overwrite=overwrite)
        with atomic_directory(target) as new:
            write_files(whole, new, form, record or RunRecord())
    return target


def write_files(policy: Policy, directory: Path, form: ExportForm, record: RunRecord) -> None:
    """Write all files of an export."""
    form.write(policy, directory)
    tokenizer = copy.deepcopy(policy.tokenizer) if form.marker else AutoTokenizer.from_pretrained(policy.source)
    generation_config(policy).save_pretrained(directory)
    if form.marker:  # a card and a template for reasoning make no sense for a base
        tokenizer.chat_template = checked_template(tokenizer, record)
        known = tokenizer.chat_template is not None and (record.chat_template is not None or bool(record.prompts))
        kept = ExportRecord(markup_settings(policy), record.limits, prompts=known)
        kept.write(directory)
        (directory / "README.md").write_text(model_card(policy, form, record), encoding="utf-8")
    tokenizer.save_pretrained(directory)
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def checked_template(tokenizer: PreTrainedTokenizerBase, record: RunRecord) -> str | None:
    """The chat template of an export: that of the run, or the base's where it gives the same prompts.

    Of a run whose prompts are known, no template is kept that gives others.
    """
    template: str | None = record.chat_template or tokenizer.chat_template
    if not record.prompts or template is None or reproduces(template, tokenizer, record.prompts):
        return template
    log.warning(
        "the export has no chat template: neither the run's template nor the base's gives the token ids of the prompts "
        "that were trained, such as %r. Make prompts as the run did, or train with PlainTemplate or ChatTemplate.",
        record.prompts[0]["messages"][-1]["content"][:80],
    )
    return None


def generation_config(policy: Policy) -> GenerationConfig:
    """The base's generation config; it ends at tokens that end an answer, and never writes ids that are no tokens."""
    config = copy.deepcopy(policy.network.generation_config)
    config.eos_token_id = policy.eos_ids if len(policy.eos_ids) > 1 else policy.eos_ids[0]
    config.pad_token_id = policy.tokenizer.pad_token_id
    if unused := unused_ids(policy):
        config.suppress_tokens = unused
    return config
