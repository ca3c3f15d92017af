"""Formats the result of a preflight for a terminal."""

from __future__ import annotations

import textwrap

from nrt_lightning.tools.preflight.measures import Aggregation, Answers, Measures, percent
from nrt_lightning.tools.preflight.verdict import Verdict

WIDTH = 100


def report(measures: Measures, verdict: Verdict, title: str) -> str:
    """The report as text.

    Args:
        measures: the figures.
        verdict: the conclusion.
        title: name of the model.
    """
    size = f"{measures.rows} questions, {measures.group_size} traces each, at most {measures.max_trace_tokens} tokens"
    parts = [
        f"{title}: {size}",
        f"Can NRT start from here? {verdict.can_start.upper()}\n{wrapped(verdict.reason)}",
        answers_table(measures),
        traces_text(measures),
        aggregations_table(measures),
    ]
    if verdict.knobs:
        parts.append("\n".join(["Knobs", *(wrapped(knob, "- ") for knob in verdict.knobs)]))
    return "\n\n".join(parts)


def answers_table(measures: Measures) -> str:
    """Table of the confidence in reference answers and of the sampled answers."""
    rows: list[tuple[str, Answers]] = [
        ("without a trace", measures.without_trace),
        ("after a trace", measures.after_trace),
        ("after another question's trace", measures.after_borrowed_trace),
        (f"after the best of {measures.group_size}", measures.after_best_trace),
        (f"after the best of another question's {measures.group_size}", measures.after_best_borrowed_trace),
    ]
    lines = [["Answers", "confidence a token", "right"]]
    return aligned(lines + [[name, f"{a.confidence:.3f}", percent(a.right)] for name, a in rows])


def traces_text(measures: Measures) -> str:
    """Length, endings and variety of the traces."""
    eos = "banned" if measures.suppress_eos else percent(measures.ended_by_eos)
    ends = (
        f"ended by the marker {percent(measures.ended_by_marker)}, by the end token {eos}, cut {percent(measures.cut)}"
    )
    looks = f"{measures.trace_tokens:.1f} tokens, entropy {measures.trace_entropy:.2f} nats a token"
    return f"Traces\n{wrapped(f'{looks}, distinct {percent(measures.distinct)}; {ends}')}"


def aggregations_table(measures: Measures) -> str:
    """Table of the aggregations, with the configured one marked."""
    lines = [["Aggregation", "gain", "groups with gain", "no variance", "right first", "AUROC in group"]]
    for name, a in measures.aggregations.items():
        lines.append([f"{name} *" if name == measures.aggregator else name, *cells(a)])
    notes = "* configured"
    if measures.right_first_by_chance is not None:
        notes += f"; right first by chance: {percent(measures.right_first_by_chance)}"
    return f"{aligned(lines)}\n{wrapped(notes)}"


def cells(a: Aggregation) -> list[str]:
    """Formatted figures of an aggregation."""
    auroc = "-" if a.auroc_within is None else f"{a.auroc_within:.2f}"
    return [f"{a.gain:+.3g}", percent(a.groups_with_gain), percent(a.zero_variance), percent(a.right_first), auroc]


def aligned(lines: list[list[str]]) -> str:
    """Align columns, the first to the left and the others to the right, and indent all lines but the first."""
    lines = [[line[0] if index == 0 else f"  {line[0]}", *line[1:]] for index, line in enumerate(lines)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def wrapped(text: str, bullet: str = "") -> str:
    """Wrap and indent a paragraph."""
    return textwrap.fill(text, WIDTH, initial_indent="  " + bullet, subsequent_indent="  " + " " * len(bullet))
