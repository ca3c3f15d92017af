"""Which scalars are drawn into one chart, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LEARNS, HEALTHY, SPEED, DETAILS = "Does it learn", "Is it healthy", "How fast", "Details"
CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    LEARNS: {
        "Exact match": ("val/exact_match", "val/exact_match_forced", "val/exact_match_without_trace"),
        "Confidence in the reference answer": ("val/confidence", "val/confidence_without_trace"),
        "Gain of traces": ("train/gain",),
        "Reward": ("train/reward",),
    },
    HEALTHY: {
        "Marker emitted": ("rollout/marker_rate", "val/marker_rate"),
        "Trace tokens": ("rollout/trace_tokens", "val/trace_tokens"),
        "Trace entropy": ("rollout/trace_entropy",),
        "Truncated traces": ("rollout/truncated_share",),
        "Groups of equal rewards": ("train/zero_variance_groups",),
        "Gradient norm": ("train/grad_norm",),
    },
    SPEED: {"Seconds of sampling": ("rollout/seconds",), "Tokens a second": ("rollout/tokens_per_second",)},
}


def chart_groups(names: Sequence[str]) -> list[dict[str, Any]]:
    """Groups of charts with the names of their curves; everything else that was logged is under the last.

    Args:
        names: of the logged scalars.
    """
    logged = [name for name in names if not name.startswith("test/")]
    known = {name for charts in CHARTS.values() for group in charts.values() for name in group}
    groups = []
    for group, charts in CHARTS.items():
        found = {title: [name for name in chart if name in logged] for title, chart in charts.items()}
        if shown := [{"title": title, "names": curves} for title, curves in found.items() if curves]:
            groups.append({"title": group, "charts": shown})
    if rest := [{"title": name, "names": [name]} for name in sorted(logged) if name not in known]:
        groups.append({"title": DETAILS, "charts": rest})
    return groups


def meanings(names: Sequence[str]) -> dict[str, str]:
    """What a scalar means, for those that are known."""
    return {}
