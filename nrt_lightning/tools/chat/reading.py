"""Reading of what a conversation needs: the policy, its prompts and its limits."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning.data.chat_template import ChatTemplate
from nrt_lightning.data.default_template import fit_together
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.export.hub_files import file_on_hub
from nrt_lightning.export.record import FILE, LIMITS, ExportRecord, RunRecord
from nrt_lightning.functional.validation import DTYPES
from nrt_lightning.models.policy.loading import resolve
from nrt_lightning.models.policy.policy import Policy

log = logging.getLogger(__name__)

ADAPTER = "adapter_config.json"


@dataclass
class Speaker:
    """A policy with the prompts and limits of its run.

    Args:
        policy: loaded.
        template: of the prompts.
        limits: tokens of traces and answers, by the names of `Sampling`; empty if unknown.
    """

    policy: Policy
    template: PromptTemplate
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def writes_traces(self) -> bool:
        """False if the policy was trained to answer at once."""
        return not self.limits or LIMITS[0] in self.limits


def speaker_of(policy: Policy, record: RunRecord) -> Speaker:
    """The speaker of a run's checkpoint.

    Args:
        policy: with the trained weights.
        record: of the run.
    """
    given = ChatTemplate(template=record.chat_template) if record.chat_template else None
    return Speaker(policy, template_for(policy, given), record.limits)


def read_speaker(model: str, marker: str | None = None) -> Speaker:
    """Read an export or another model.

    Args:
        model: a directory, a hub id or an embedded base.
        marker: text of the marker; null for that of the export.

    Raises:
        InputError: the model cannot be read.
    """
    record = found_record(model)
    settings = record.policy
    if marker is not None:
        settings = {"marker": marker, **{name: text for name, text in settings.items() if name == "answer_end"}}
    policy = read_policy(model, settings).eval()
    if policy.marker_is_new and (not record.limits or LIMITS[0] in record.limits):
        log.warning("the vocabulary of %s has no marker. It is added, and was never trained.", model)
    return Speaker(policy, template_for(policy, ChatTemplate() if record.prompts else None), record.limits)


def template_for(policy: Policy, given: PromptTemplate | None) -> PromptTemplate:
    """The template of the run, or the default template with a warning."""
    if given is not None:
        return given.with_markup(policy.markup)
    template = fit_together(None, policy.tokenizer, policy)
    log.warning("%s has no record of the prompts of a run. They are made by %s.", policy.source, template)
    return template


def found_record(model: str) -> ExportRecord:
    """The record in an export, empty for other models."""
    source = resolve_any(model)
    path = Path(source) / FILE if Path(source).is_dir() else file_on_hub(source, FILE)
    return ExportRecord.read(path) if path is not None and path.is_file() else ExportRecord()


def resolve_any(model: str) -> str:
    """The directory or hub id of a model, or the directory of an adapter."""
    directory = Path(model).expanduser()
    return str(directory) if (directory / ADAPTER).is_file() else resolve(model)


def read_policy(model: str, settings: dict[str, str]) -> Policy:
    """The policy of a directory or hub id in the dtype of its files, or of an adapter and its base."""
    directory: Any = Path(model).expanduser()
    if (directory / ADAPTER).is_file() and not (directory / "config.json").is_file():
        return read_adapter(directory, settings)
    policy = Policy(model, **settings)  # type: ignore[arg-type]
    dtype = str(policy.config.dtype).removeprefix("torch.")
    if dtype in DTYPES and dtype != "float32":
        policy = policy.sibling(dtype=dtype)
    return policy.load()


def read_adapter(directory: Path, settings: dict[str, str]) -> Policy:
    """The policy of an adapter in the files of peft, added to its base.

    Raises:
        InputError: peft is not installed, or the base cannot be read.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError:
        raise InputError(
            f"{directory} holds an adapter, which needs peft: pip install 'nrt-lightning[qlora]'"
        ) from None
    try:
        base = str(PeftConfig.from_pretrained(str(directory)).base_model_name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        network: Any = AutoModelForCausalLM.from_pretrained(resolve(base), dtype="auto")
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise InputError(f"{directory} holds an adapter whose base cannot be read ({error}). Put it back.") from error
    if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    merged: Any = PeftModel.from_pretrained(network, directory).merge_and_unload()
    return Policy(merged, tokenizer=tokenizer, **settings).load()  # type: ignore[arg-type]
