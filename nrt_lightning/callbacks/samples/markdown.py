"""Samples as Markdown that shows any text as it is."""

from __future__ import annotations

import re
from typing import Any

TITLES = {"best": "Best trace", "worst": "Worst trace", "greedy": "Greedy trace"}


def fenced(text: str) -> str:
    """A text between fences that it does not contain.

    >>> print(fenced("a ``` b"))
    ````text
    a ``` b
    ````
    """
    clean = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    runs = [len(run) for run in re.findall(r"`+", clean)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return f"{fence}text\n{clean or '(empty)'}\n{fence}"


def block(record: dict[str, Any]) -> str:
    """One question with its traces."""
    without = record["baseline_confidence"]
    known = "" if without is None else f" (confidence without a trace {number(without)})"
    lines = [f"### Question {inline(record['id'])}", fenced(record["question"])]
    lines += [f"Reference answer{known}", fenced(record["reference"])]
    for trace in record["traces"]:
        if trace["text"] is not None:
            lines += [f"**{TITLES[trace['kind']]}**: {', '.join(facts(trace))}", fenced(trace["text"])]
        if trace["own_answer"] is None:
            lines.append(f"The policy's own answer: {inline(trace['own_answer_note'])}")
        else:
            judged = [] if trace["right"] is None else ["right" if trace["right"] else "wrong"]
            alone = figures(trace) if trace["text"] is None else []
            lines += [", ".join(["The policy's own answer", *judged, *alone]), fenced(trace["own_answer"])]
    return "\n\n".join(lines)


def facts(trace: dict[str, Any]) -> list[str]:
    """What is known of a trace."""
    marker = "emitted" if trace["marker_emitted"] else "not emitted"
    cut = "cut" if trace["cut"] else "not cut"
    return [*figures(trace), f"{trace['trace_tokens']} tokens", f"marker {marker}", cut]


def figures(trace: dict[str, Any]) -> list[str]:
    """The figures of a trace, or of an answer without one, that are known."""
    return [
        f"{title} {number(trace[name], sign=name == 'gain')}"
        for title, name in (
            ("reward", "reward"),
            ("gain", "gain"),
            ("confidence in the reference answer", "confidence"),
        )
        if trace[name] is not None
    ]


def number(value: float, *, sign: bool = False) -> str:
    """A figure with three digits.

    >>> number(0.123456), number(1.5, sign=True), number(0.0000123)
    ('0.123', '+1.5', '1.23e-05')
    """
    return f"{value:+.3g}" if sign else f"{value:.3g}"


def inline(text: str) -> str:
    """A text on one line that Markdown does not read.

    >>> inline("a|b_c*d")
    'a\\\\|b\\\\_c\\\\*d'
    """
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~])", r"\\\1", " ".join(text.split()))
