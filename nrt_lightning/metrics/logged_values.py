"""Every value that a run logs: what it means, where it belongs, and what to do if it leaves its range."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

import nrt_lightning.assets

GROUPS = {  # in the order of display: title
    "learns": "does it learn",
    "gains": "do traces help",
    "healthy": "is it healthy",
    "speed": "how fast",
    "details": "details",
}
TESTED = "test/"  # the figures of `val/` on the test rows, and those of `DifficultyGain`
CHARTS: dict[str, dict[str, list[str]]] = {  # by group and title: the values that are drawn together
    "learns": {
        "exact match": ["val/exact_match", "val/exact_match_forced", "val/exact_match_without_trace"],
        "confidence": ["val/confidence", "val/confidence_without_trace"],
    },
    "gains": {
        "gain of traces": ["train/gain"],
        "reward": ["train/reward"],
        "surprise of the reference answer": ["train/answer_nll"],
    },
    "healthy": {
        "marker rate": ["rollout/marker_rate", "val/marker_rate"],
        "trace length": ["rollout/trace_tokens", "val/trace_tokens"],
        "entropy of traces": ["rollout/trace_entropy"],
        "traces: truncated, distinct": ["rollout/truncated_share", "rollout/unique_traces"],
        "groups without variance": ["train/zero_variance_groups", "train/groups_without_loss"],
        "gradient norm": ["train/grad_norm"],
        "off-policy: ratio": ["train/ratio_mean", "train/sampler_ratio_mean"],
        "off-policy: clipped": ["train/clip_share", "train/sampler_capped_share"],
        "KL to the reference": ["train/kl"],
    },
    "speed": {
        "tokens a second": ["rollout/tokens_per_second", "train/tokens_per_second"],
        "seconds of sampling": ["rollout/seconds", "rollout/seconds_waited"],
        "peak memory": ["rollout/peak_memory_mib"],
    },
    "details": {
        "loss": ["train/loss", "train/loss_trace", "train/loss_marker", "train/loss_answer", "train/loss_kl"],
        "advantages": ["train/advantage_abs", "train/advantage_mean"],
    },
}


@dataclass(frozen=True)
class LoggedValue:
    """What a logged value is.

    Args:
        name: as it is logged; `NAME` in it stands for any text.
        group: one of `GROUPS`.
        title: in words.
        meaning: one or two sentences.
        unit: with its range.
        healthy: where it lies in a run that goes well.
        action: what to do otherwise.
    """

    name: str
    group: str
    title: str
    meaning: str
    unit: str
    healthy: str
    action: str


@cache
def logged_values() -> dict[str, LoggedValue]:
    """All values by name, in the order of display."""
    file = Path(nrt_lightning.assets.__path__[0], "logged_values.yaml")
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {
        name: LoggedValue(name, group, **{key: str(text) for key, text in fields.items()})
        for group, values in groups.items()
        for name, fields in values.items()
    }


def describe(name: str) -> LoggedValue | None:
    """What a logged value is; None for names that are not this package's.

    >>> describe("train/signal_format_failed").title, describe("test/exact_match").group, describe("mine")
    ('failures of signal format', 'learns', None)
    """
    known = logged_values()
    if name.startswith(TESTED):
        name = f"val/{name.removeprefix(TESTED)}"
    if name in known:
        return known[name]
    families = sorted((value for key, value in known.items() if "NAME" in key), key=lambda value: -len(value.name))
    for family in families:
        found = re.fullmatch(re.escape(family.name).replace("NAME", "(.+)"), name)
        if found:
            title = family.title.replace("NAME", found[1])
            return LoggedValue(name, family.group, title, family.meaning, family.unit, family.healthy, family.action)
    return None


def logged_values_page() -> str:
    """The tables of docs/logged_values.md."""
    parts = []
    for group, title in GROUPS.items():
        lines = [f"## {title[0].upper()}{title[1:]}", "", "| name | meaning | unit | healthy | otherwise |"]
        lines.append("|---|---|---|---|---|")
        for value in logged_values().values():
            if value.group == group:
                cells = (f"`{value.name}`", value.meaning, value.unit, value.healthy, value.action)
                lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
