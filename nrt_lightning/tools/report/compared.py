"""Several runs of a page, compared in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from nrt_lightning.tools.report.runs import Run

DATA = ("data.val", "data.test")  # settings of the rows that answers are measured on
CLOSE = 0.02  # of a rate


def compared(runs: Sequence[Run]) -> str:
    """Which run answers best, if they can be compared; empty for one run, and for runs without answers.

    Args:
        runs: of the page.
    """
    rows = [measured_on(run) for run in runs if isinstance(run.facts.get("settings"), dict)]
    tested = {run.name: run.results["exact_match"] for run in runs if "exact_match" in run.results}
    validated = {run.name: rate for run in runs if (rate := run.history.last("val/exact_match")) is not None}
    rates = tested if len(tested) >= max(2, len(validated)) else validated
    if len(rates) < 2:
        return ""
    if any(other != rows[0] for other in rows[1:]):
        return "The runs were measured on different questions (Settings), so that their figures cannot be compared."
    order = sorted(rates, key=lambda name: -rates[name])
    best, second = order[:2]
    head = f"{best} and {second} are level" if rates[best] - rates[second] < CLOSE else f"{best} answers best"
    figures = ", ".join(f"{name} {rates[name]:.3f}" for name in order)
    return f"{head}. Exact match on {'test' if rates is tested else 'validation'} questions: {figures}."


def measured_on(run: Run) -> dict[str, object]:
    """The settings of the rows that a run was measured on."""
    return {name: value for name, value in run.facts["settings"].items() if name.startswith(DATA)}
