"""Model card of an exported policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nrt_lightning.export.base_facts import base_facts

if TYPE_CHECKING:
    from nrt_lightning.export.forms import ExportForm
    from nrt_lightning.export.record import RunRecord
    from nrt_lightning.models.policy.policy import Policy

CARD = """---
{front}---

# {title}

{what} with nrt-lightning.

## Use

{use}

{reading}
{sections}"""

TRACES = """\
The model writes a trace of reasoning, then the marker {marker}, then the answer, which ends with
{ends}. It was trained from questions and answers alone by Native Reasoning Training
([arXiv 2602.11549](https://arxiv.org/abs/2602.11549))"""

TOKEN = """The marker is a special token: decode with `skip_special_tokens=False` to see where the answer begins. In
lm-eval, give `think_end_token={ids}`; in vLLM, `skip_special_tokens=False`."""

TEXT = """The marker is ordinary text: split the output at its first occurrence to see where the answer begins."""

CHAT = '`nrt-lightning chat "this directory"` answers questions.'

DIRECT = """\
The model writes the answer right after the question. The answer ends with {ends}. It was trained by supervised
fine-tuning"""

WHOLE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this directory")
model = AutoModelForCausalLM.from_pretrained("this directory")
```"""

ADAPTER = """The weights are an adapter for `{base}`. The vocabulary grows by the marker if necessary.

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this directory")
model = AutoPeftModelForCausalLM.from_pretrained("this directory")
```"""


def in_line(text: str) -> str:
    """A text in one line, line breaks shown as in Python."""
    return text.replace("\n", "\\n")


def model_card(policy: Policy, form: ExportForm, record: RunRecord) -> str:
    """The text of README.md: method, data, metrics and command, if they are known."""
    markup, tokens = policy.markup, [policy.tokenizer.decode([token]) for token in policy.eos_ids]
    shown, ids = in_line(markup.marker), " ".join(map(str, markup.marker_ids))
    ends = [f"`{in_line(text)}`" for text in ([markup.end_text] if markup.end_text else []) + tokens]
    base = str(policy.settings.get("model", policy.source))
    parts = record.method | {"adapter": str(policy.adapter), "quantization": str(policy.quantization)}
    method = "\n".join(f"- {part}: `{setting}`" for part, setting in parts.items() if setting != "None")
    metrics = "\n".join(f"| {name} | {value:.4g} |" for name, value in record.metrics.items())
    sections = {
        "Method": method,
        "Data": f"`{record.data}`" if record.data else "",
        "Metrics": f"From the last validation or test.\n\n| metric | value |\n|---|---:|\n{metrics}" if metrics else "",
        "Command": f"```bash\n{record.command}\n```" if record.command else "",
    }
    words = {
        "marker": f"`{shown}` ({'token' if markup.marker_token else 'ordinary text, usually tokens'} {ids})",
        "ids": ids,
        "ends": " or ".join(ends),
    }
    what, trained, finding = DIRECT, "fine-tuned", ""
    if record.writes_traces:
        what, trained, finding = TRACES, "trained to reason", (TOKEN if markup.marker_token else TEXT) + "\n\n"
    return CARD.format(
        front=yaml.safe_dump(front_of(policy, form, record), sort_keys=False, allow_unicode=True),
        title=f"{Path(base).name if Path(base).is_dir() else base}, {trained}",
        what=what.format(**words),
        use=(ADAPTER if form.library == "peft" else WHOLE).format(base=base),
        reading=finding.format(**words) + CHAT,
        sections="".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items() if text),
    )


def front_of(policy: Policy, form: ExportForm, record: RunRecord) -> dict[str, Any]:
    """The YAML at the beginning of the card, which the hub reads. What is not known of the base is left out."""
    front: dict[str, Any] = {"library_name": form.library, "pipeline_tag": "text-generation"}
    facts = base_facts(policy)
    if "base_model" in facts:
        whole = form.relation == "finetune" and policy.adapter is None
        quantized = whole and getattr(policy.config, "quantization_config", None) is not None
        facts["base_model_relation"] = "quantized" if quantized else form.relation
    tags = ["reasoning", "native-reasoning-training"] if record.writes_traces else ["sft"]
    return front | facts | {"tags": ["nrt-lightning", *tags]}
