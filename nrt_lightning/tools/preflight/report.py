"""Formats the result of a preflight for a terminal."""

from __future__ import annotations

import textwrap

from nrt_lightning.tools.preflight.endings import WrittenEnd
from nrt_lightning.tools.preflight.measures import Aggregation, Answers, Measures, SignalFigures, percent
from nrt_lightning.tools.preflight.verdict import Verdict

WIDTH = 100


def report(measures: Measures, verdict: Verdict, title: str) -> str:
    """The report as text.

    Args:
        measures: the figures.
        verdict: the conclusion.
        title: name of the model.
    """
    setup = measures.setup
    size = f"{measures.rows} questions, {setup.group_size} traces each, at most {setup.max_trace_tokens} tokens"
    looked_at = [f"{setup.markup}" + ("; the marker is new to the base" if setup.marker_is_new else "")]
    looked_at += [f"prompts by {setup.template}"] if setup.template else []
    parts = [
        "\n".join([f"{title}: {size}", *map(wrapped, looked_at)]),
        f"Can NRT start from here? {verdict.can_start.upper()}\n{wrapped(verdict.reason)}",
        answers_table(measures),
        traces_text(measures),
        aggregations_table(measures),
        *([signals_table(measures)] if measures.signals else []),
    ]
    if verdict.knobs:
        parts.append("\n".join(["Knobs", *(wrapped(knob, "- ") for knob in verdict.knobs)]))
    return "\n\n".join(parts)


def answers_table(measures: Measures) -> str:
    """Table of the confidence in reference answers and of the sampled answers."""
    setup = measures.setup
    rows: list[tuple[str, Answers]] = [
        ("without a trace", measures.without_trace),
        ("after a trace", measures.after_trace),
        ("after another question's trace", measures.after_borrowed_trace),
        (f"after the best of {setup.group_size}", measures.after_best_trace),
        (f"after the best of another question's {setup.group_size}", measures.after_best_borrowed_trace),
    ]
    lines = [["Answers", "confidence a token", "right"]]
    table = aligned(lines + [[name, f"{a.confidence:.3f}", percent(a.right)] for name, a in rows])
    return table if measures.end is None else f"{table}\n{wrapped(end_text(measures.end, setup.markup.end))}"


def end_text(end: WrittenEnd, configured: str) -> str:
    """How right answers end."""
    return (
        f"after right answers: confidence {end.confidence:.3f} in the end {configured!r}; the policy writes "
        f"{end.text!r} in {percent(end.share)}"
    )


def traces_text(measures: Measures) -> str:
    """Length, endings and variety of the traces."""
    eos = "banned" if measures.setup.suppress_eos else percent(measures.ended_by_eos)
    ends = (
        f"ended by the marker {percent(measures.ended_by_marker)}, by the end token {eos}, cut {percent(measures.cut)}"
    )
    looks = f"{measures.trace_tokens:.1f} tokens, entropy {measures.trace_entropy:.2f} nats a token"
    return f"Traces\n{wrapped(f'{looks}, distinct {percent(measures.distinct)}; {ends}')}"


def aggregations_table(measures: Measures) -> str:
    """Table of the aggregations, with the configured one marked."""
    lines = [["Aggregation", "gain", "groups with gain", "no variance", "right first", "AUROC in group"]]
    configured = None if measures.signals else measures.setup.aggregator
    for name, a in measures.aggregations.items():
        lines.append([f"{name} *" if name == configured else name, *cells(a)])
    notes = [] if configured is None else ["* configured"]
    if measures.right_first_by_chance is not None:
        notes.append(f"right first by chance: {percent(measures.right_first_by_chance)}")
    return "\n".join([aligned(lines), *([wrapped("; ".join(notes))] if notes else [])])


def cells(a: Aggregation) -> list[str]:
    """Formatted figures of an aggregation."""
    return [f"{a.gain:+.3g}", percent(a.groups_with_gain), percent(a.zero_variance), percent(a.right_first),
            decimal(a.auroc_within)]  # fmt: skip


def signals_table(measures: Measures) -> str:
    """Table of the signals, after the reward that they are combined to."""
    lines = [["Signal", "mean", "spread", "no variance", "right first", "AUROC in group", "failed"]]
    for name, s in measures.signals.items():
        lines.append([f"{name} *" if name == "reward" else name, *signal_cells(s)])
    return f"{aligned(lines)}\n{wrapped('* configured: what the signals are combined to')}"


def signal_cells(s: SignalFigures) -> list[str]:
    """Formatted figures of a signal."""
    return [f"{s.mean:.3g}", f"{s.spread:.3g}", percent(s.zero_variance), percent(s.right_first),
            decimal(s.auroc_within), percent(s.failed)]  # fmt: skip


def decimal(value: float | None) -> str:
    """A figure between 0 and 1."""
    return "-" if value is None else f"{value:.2f}"


def first_figures(measures: Measures, left: str) -> str:
    """What the first rows show.

    Args:
        measures: of these rows.
        left: the time that is left, as the end of a sentence.
    """
    without, after = measures.without_trace, measures.after_trace
    useful = f"{percent(measures.useful.value)} of the traces are useful, " if measures.checked else ""
    return wrapped(
        f"first {measures.rows} questions: {useful}{percent(measures.ended_by_marker)} of the traces end with the "
        f"marker, {percent(measures.cut)} are cut; answers are right "
        f"{percent(without.right)} without a trace, {percent(after.right)} after one; confidence a token "
        f"{without.confidence:.3f} without and {after.confidence:.3f} after{left}"
    ).strip()


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
