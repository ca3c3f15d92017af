"""The figures of an evaluation as a table."""

from __future__ import annotations

from typing import Any

from nrt_lightning.callbacks.results import aligned


def table(figures: dict[str, Any]) -> str:
    """Metrics with their standard errors, and what the answers were like.

    >>> exact = {"mean": 0.5, "stderr": 0.1, "failed": 0}
    >>> print(table({"questions": 8, "samples": 1, "metrics": {"exact_match": exact}, "marker_rate": 1.0}))
    metric      |  mean | stderr
    ------------|-------|-------
    exact_match | 0.500 |  0.100
    <BLANKLINE>
    8 questions, 1 answer each
    marker rate 1.000
    """
    metrics = figures["metrics"]
    columns = [name for name in next(iter(metrics.values()), {}) if name != "failed"]
    rows = [["metric", *columns], *([name, *(cell(of[c]) for c in columns)] for name, of in metrics.items())]
    count = figures["samples"]
    lines = [*(aligned(rows) if metrics else []), ""]
    lines.append(f"{figures['questions']} questions, {count} answer{'s' if count > 1 else ''} each")
    for name in ("marker_rate", "ended_answers", "trace_tokens", "confidence", "confidence_without_trace"):
        if name in figures:
            digits = 1 if name == "trace_tokens" else 3
            lines.append(f"{name.replace('_', ' ')} {figures[name]:.{digits}f}")
    lines += [f"{name} failed for {of['failed']} answers" for name, of in metrics.items() if of["failed"]]
    return "\n".join(lines)


def cell(value: float | None) -> str:
    """A figure of the table."""
    return "-" if value is None else f"{value:.3f}"
