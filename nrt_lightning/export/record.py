"""Record of the run that trained a policy, and what of it an export keeps for `nrt-lightning chat`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError
from nrt_lightning.export.prompts import seen_prompts, templates_of, training_template
from nrt_lightning.models.policy.markup import RECORD

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

FILE = RECORD  # in an export
MARKUP = ("marker", "separator", "answer_end")
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
        prompts: some that were trained on, `messages` and `ids`; an export compares its chat template with them.
    """

    method: dict[str, str] = field(default_factory=dict)
    data: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    command: str = ""
    chat_template: str | None = None
    limits: dict[str, int] = field(default_factory=dict)
    prompts: list[dict[str, Any]] = field(default_factory=list)

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
        seen = seen_prompts(module)
        jinja = training_template(templates_of(data, own_batches, module), module.policy.tokenizer, seen)
        logged = sorted(trainer.callback_metrics.items())
        metrics = {name: float(value) for name, value in logged if name.startswith(("val/", "test/"))}
        program = "nrt-lightning" if sys.argv[0].endswith(("nrt-lightning", "__main__.py")) else sys.argv[0]
        command = shlex.join([program, *sys.argv[1:]])
        source = "" if source is None else str(source)
        return cls(describe(module), source, metrics, command, jinja, limits_of(module), seen)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def describe(module: Any) -> dict[str, str]:
    """The settings of a module's method, as text."""
    found: dict[str, str] = (module if hasattr(module, "describe") else module.method).describe()
    return found


def limits_of(module: Any) -> dict[str, int]:
    """The limits of what a module writes."""
    holder = module.method.sampling if hasattr(module, "method") else module
    return {name: int(getattr(holder, name)) for name in LIMITS if hasattr(holder, name)}


def markup_settings(policy: Policy) -> dict[str, str]:
    """The settings of `Policy` that say what stands between a trace and its answer."""
    markup = policy.markup
    return {"marker": markup.marker, "separator": markup.separator, "answer_end": markup.end}


@dataclass
class ExportRecord:
    """What an export keeps of its run, beside tokenizer and chat template.

    Args:
        policy: settings of `Policy`, as they were resolved.
        limits: those of `RunRecord`.
        prompts: the chat template makes the prompts of the run.
    """

    policy: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    prompts: bool = field(default=False, kw_only=True)

    def write(self, directory: Path) -> None:
        """Write the record to an export."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (directory / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> ExportRecord:
        """Read the file of an export.

        Raises:
            InputError: the file is damaged.
        """
        try:
            kept = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}). Export again.") from error
        texts = isinstance(kept.policy, dict) and all(isinstance(text, str) for text in kept.policy.values())
        if not texts or set(kept.policy) - set(MARKUP):
            raise InputError(f"{path}: 'policy' holds something else than the texts {', '.join(MARKUP)}. Export again.")
        tokens = isinstance(kept.limits, dict) and all(type(n) is int and n >= 0 for n in kept.limits.values())
        if not tokens or set(kept.limits) - set(LIMITS) or type(kept.prompts) is not bool:
            raise InputError(f"{path}: 'limits' holds something else than numbers of tokens. Export again.")
        return kept
