"""Which scalars are drawn into one chart, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nrt_lightning.metrics.logged_values import CHARTS, GROUPS, describe


def chart_groups(names: Sequence[str]) -> list[dict[str, Any]]:
    """Groups of charts with the names of their curves. What has no chart of its own is in that of its group.

    Args:
        names: of the logged scalars.
    """
    logged = [name for name in names if not name.startswith("test/")]
    known = {name for charts in CHARTS.values() for group in charts.values() for name in group}
    groups = []
    for group, title in GROUPS.items():
        found = {chart: [name for name in curves if name in logged] for chart, curves in CHARTS.get(group, {}).items()}
        charts = [{"title": sentence(chart), "names": curves} for chart, curves in found.items() if curves]
        if group == "details":
            charts += [{"title": title_of(name), "names": [name]} for name in sorted(logged) if name not in known]
        if charts:
            groups.append({"title": sentence(title), "charts": charts})
    return groups


def title_of(name: str) -> str:
    """Title of a scalar: its name, so that it is found again, and what it is."""
    value = describe(name)
    return name if value is None else f"{sentence(value.title)} ({name})"


def sentence(text: str) -> str:
    """A text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def meanings(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What scalars mean, and what to do with them, for those that are known."""
    found = {name: describe(name) for name in names}
    return {
        name: {"title": value.title, "meaning": value.meaning, "healthy": value.healthy, "action": value.action}
        for name, value in found.items()
        if value is not None
    }
