"""Scalars of a run over time, whichever logger wrote them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrt_lightning.metrics.logged_values import GROUPS
from nrt_lightning.tools.report.lines import bounded_lines, number, read_lines, readable, step_number

AXES = ("step", "prompts", "rollouts", "seconds")
GROUPED = re.compile(rf"^\d_(?:{'|'.join(GROUPS)})/")  # what `Dashboard` puts before a name
POINTS = 300  # of a curve in the page, about as many as a screen shows apart


@dataclass
class History:
    """Values of scalars by name, and where each was logged."""

    events: dict[int, dict[str, float]] = field(default_factory=dict)  # by step: the axes that are known
    series: dict[str, dict[int, float]] = field(default_factory=dict)  # by name and step
    source: str = ""  # the file that it was read from
    unread: int = 0  # lines that could not be read
    unusable: int = 0  # values that are no number, such as NaN

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Add what was logged at a step. A later value of the same step counts."""
        event = self.events.setdefault(step, {"step": float(step)})
        for name, value in values.items():
            real = number(value)
            if real is None or name == "epoch":
                self.unusable += real is None and value is not None
                continue
            if name in AXES:
                event[name] = real
            else:
                self.series.setdefault(name, {})[step] = real

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Steps and values of a scalar, in order; empty if it was not logged."""
        return sorted(self.series.get(name, {}).items())

    def steps(self) -> int:
        """The last step at which something was logged."""
        return max(self.events, default=0)

    def last(self, name: str, fraction: float = 0.0) -> float | None:
        """The last value of a scalar, or the mean of the last fraction of its values."""
        values = [value for _, value in self.curve(name)]
        if not values:
            return None
        count = max(1, round(fraction * len(values)))
        return sum(values[-count:]) / count

    def thinned(self, names: Iterable[str], points: int = POINTS) -> dict[str, Any]:
        """The curves of these names with at most so many points each: means over equally many events.

        Returns:
            `axes`: by name, a value for each point; `series`: the same, None where nothing was logged; `events`: how
            many events a point is the mean of.
        """
        logged = {step for name, curve in self.series.items() if not name.startswith("test/") for step in curve}
        steps = sorted(logged)
        size = max(1, math.ceil(len(steps) / points))
        groups = [steps[start : start + size] for start in range(0, len(steps), size)]
        axes = {axis: [self.events[group[-1]].get(axis) for group in groups] for axis in AXES}
        series = {}
        for name in names:
            curve = self.series.get(name)
            if name.startswith("test/") or curve is None:
                continue
            means = []
            for group in groups:
                values = [curve[step] for step in group if step in curve]
                means.append(significant(sum(values) / len(values)) if values else None)
            series[name] = means
        return {
            "axes": {axis: values for axis, values in axes.items() if values and None not in values},
            "series": series,
            "events": size,
        }


def significant(value: float, digits: int = 5) -> float:
    """A number with few digits.

    >>> significant(0.123456789), significant(1234567.0)
    (0.12346, 1234600.0)
    """
    return float(f"{value:.{digits}g}")


def read_history(folder: Path) -> History | None:
    """The scalars of a run: its history or, without one, its CSV or TensorBoard files; None if there are none."""
    for name, read in (("metrics.jsonl", from_history), ("metrics.csv", from_csv)):
        if readable(folder / name) and (history := read(folder / name)).series:
            return history
    return from_events(folder) if any(folder.glob("events.out.tfevents.*")) else None


def from_history(path: Path) -> History:
    """From the file of `RunHistory`."""
    history = History(source=path.name)
    rows, history.unread = read_lines(path)
    for row in rows:
        step = step_number(row.pop("step", None))
        if step is None:
            history.unread += 1
        else:
            history.add(step, row)
    return history


def from_csv(path: Path) -> History:
    """From the file of a CSVLogger, whose steps count from 0."""
    history = History(source=path.name)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader("\n" if line is None else line.replace("\0", "") for line in bounded_lines(file))
        while True:
            try:
                row = next(rows)
                step = step_number(int(row["step"]))
                values = {name: float(value) for name, value in row.items() if value and name and name != "step"}
                history.add(step + 1, values)  # type: ignore[operator]
            except StopIteration:
                return history
            except (csv.Error, ValueError, KeyError, TypeError):
                history.unread += 1


def from_events(folder: Path) -> History | None:
    """From TensorBoard's files, whose steps count from 0; None where they hold no scalars."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = History(source="TensorBoard's event files")
    if not all(readable(file) for file in folder.glob("*tfevents*")):
        return None
    try:
        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 1, "images": 1}).Reload()
    except Exception:  # of any kind: the files are not ours
        return None
    for name in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(name):
            if (step := step_number(event.step)) is not None:
                history.add(step + 1, {GROUPED.sub("", name): event.value})
    return history if history.series else None
