"""The sampled traces in a page: checked, and no more of them than fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nrt_lightning.tools.report.lines import number, step_number, text, without_middle

LONGEST = 1500  # characters of a text in the page
TOKENS = 400  # of an answer in the heat map


def short(value: Any) -> str:
    """Any value as a text that fits into the page."""
    return without_middle(text(value), LONGEST)


def sample_of(row: dict[str, Any]) -> dict[str, Any] | None:
    """A line of samples.jsonl as the page shows it; None if it is none."""
    step, traces = step_number(row.get("step")), row.get("traces")
    if step is None or not isinstance(traces, list):
        return None
    tokens = row.get("answer_tokens")
    tokens = [text(token) for token in tokens] if isinstance(tokens, list) else []
    return {
        "step": step,
        "split": text(row.get("split"))[:40],
        "id": short(row.get("id")),
        "question": short(row.get("question")),
        "reference": short(row.get("reference")),
        "tokens": tokens[:TOKENS],
        "tokens_left_out": max(0, len(tokens) - TOKENS),
        "baseline": numbers(row.get("baseline_logprobs"), len(tokens)),
        "baseline_confidence": rounded(row.get("baseline_confidence")),
        "traces": [trace_of(trace, len(tokens)) for trace in traces if isinstance(trace, dict)],
    }


def trace_of(trace: dict[str, Any], length: int) -> dict[str, Any]:
    """A trace of a sample; its `text` is None where the policy answers without one."""
    flags = {name: trace[name] for name in ("right", "marker_emitted", "cut") if isinstance(trace.get(name), bool)}
    figures = {name: rounded(trace.get(name)) for name in ("reward", "gain", "confidence", "trace_tokens")}
    texts = {name: short(trace[name]) for name in ("own_answer", "own_answer_note") if isinstance(trace.get(name), str)}
    written = trace.get("text")
    words = {"kind": text(trace.get("kind"))[:40], "text": short(written) if isinstance(written, str) else None}
    return words | flags | figures | texts | {"logprobs": numbers(trace.get("logprobs"), length)}


def rounded(value: Any, digits: int = 4) -> float | None:
    """A number with few digits; None for anything else."""
    real = number(value)
    return None if real is None else float(f"{real:.{digits}g}")


def numbers(values: Any, length: int) -> list[float | None] | None:
    """Log-probs of the answer's tokens; None unless there is one for each."""
    if not isinstance(values, list) or len(values) != length:
        return None
    return [rounded(value, 3) for value in values[:TOKENS]]


def fit(samples: Sequence[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """The samples of as many looks as fit into so many characters, the first and the last look among them.

    Every second look is left out until the rest fits; then rows at the end of each look.
    """
    kept = list(samples)
    size = {id(sample): len(json.dumps(sample, ensure_ascii=False).encode("utf-8", "replace")) for sample in kept}
    while kept and sum(size[id(sample)] for sample in kept) > budget:
        steps = sorted({sample["step"] for sample in kept})
        if len(steps) > 2:
            wanted = {*steps[::2], steps[-1]}
            kept = [sample for sample in kept if sample["step"] in wanted]
        else:
            kept = kept[: len(kept) // 2] if len(kept) > 1 else []
    return kept
