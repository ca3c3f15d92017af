"""Record of the run that trained a policy."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class RunRecord:
    """Contents of the model card and the chat template. Holds plain values only, so a checkpoint can store it.

    Args:
        method: settings of the method by part.
        data: source of the training data.
        metrics: of the last validation and test.
        command: that started the run.
        chat_template: Jinja text of the prompts in training; None if unknown.
    """

    method: dict[str, str] = field(default_factory=dict)
    data: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    command: str = ""
    chat_template: str | None = None

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
        return cls(module.describe(), "" if source is None else str(source), metrics, command, jinja)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)
