"""Record of the run that trained a policy, and what of it an export keeps for `nrt-lightning chat`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

FILE = "nrt_lightning.json"  # in an export
LIMITS = ("max_trace_tokens", "max_answer_tokens")


@dataclass
class RunRecord:
    """Contents of the model card and the chat template. Holds plain values only, so a checkpoint can store it.

    Args:
        method: settings of the method by part.
        data: source of the training data.
        metrics: of the last validation and test.
        command: that started the run.
        chat_template: Jinja text of the prompts in training; None if unknown.
        limits: tokens of a trace and of an answer, by the names of `Sampling`; without that of a trace if the policy
            writes none. Empty if unknown.
    """

    method: dict[str, str] = field(default_factory=dict)
    data: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    command: str = ""
    chat_template: str | None = None
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def writes_traces(self) -> bool:
        """False if the run trained answers alone."""
        return not self.limits or LIMITS[0] in self.limits

    @classmethod
    def of(cls, trainer: Any, module: Any) -> RunRecord:
        """Record of a trainer's current or last run."""
        data = getattr(trainer, "datamodule", None)
        source = getattr(data, "sources", {}).get("train")
        own_batches = vars(module).get("text_encoder")  # of the user's dataloader, if there was one
        template = getattr(data, "template", None) or getattr(own_batches, "template", None)
        jinja = template.jinja(module.policy.tokenizer) if template is not None else None
        logged = sorted(trainer.callback_metrics.items())
        metrics = {name: float(value) for name, value in logged if name.startswith(("val/", "test/"))}
        program = "nrt-lightning" if sys.argv[0].endswith(("nrt-lightning", "__main__.py")) else sys.argv[0]
        command = shlex.join([program, *sys.argv[1:]])
        return cls(module.describe(), "" if source is None else str(source), metrics, command, jinja, limits_of(module))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def limits_of(module: Any) -> dict[str, int]:
    """The limits of what a module writes."""
    holder = module.method.sampling if hasattr(module, "method") else module
    return {name: int(getattr(holder, name)) for name in LIMITS if hasattr(holder, name)}


def markup_settings(policy: Policy) -> dict[str, str]:
    """The settings of `Policy` that say what stands between a trace and its answer."""
    return {"marker": policy.tokenizer.decode([policy.marker_id])}


def write_record(policy: Policy, record: RunRecord, directory: Path) -> None:
    """Write what a conversation with the export needs, beside tokenizer and chat template."""
    kept = {"policy": markup_settings(policy), "limits": record.limits}
    (directory / FILE).write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """The settings of `Policy` and the limits in the file of an export.

    Raises:
        InputError: the file is damaged.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        policy, limits = dict(kept["policy"]), dict(kept["limits"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}). Export again.") from error
    if not all(isinstance(text, str) for text in policy.values()):
        raise InputError(f"{path}: 'policy' holds a value that is no text. Export again.")
    if not all(type(limit) is int and limit >= 0 for limit in limits.values()) or set(limits) - set(LIMITS):
        raise InputError(f"{path}: 'limits' holds something else than numbers of tokens. Export again.")
    return policy, limits
