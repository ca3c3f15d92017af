"""How well a policy knows what it knows, from the lines of `SelfAssessment`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nrt_lightning.tools.report.lines import number, step_number, text

SHOWN = 200  # rows of the table
BINS = 5  # of the calibration curve: there are few rows
SIGNALS = ("agreement", "confidence")


def calibration(looks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest look with its curves; None without a look.

    Args:
        looks: lines of self_assessment.jsonl.

    Returns:
        `step`, `count`, the first `rows`, and for each signal `bins` of (mean signal, fraction right, rows) and
        `coverage` of (fraction of the rows that are kept, fraction right of them). Without a known correctness there
        are rows only.
    """
    known = [(step_number(look.get("step")), look["rows"]) for look in looks if isinstance(look.get("rows"), list)]
    found = [(step, [row for row in rows if isinstance(row, dict)]) for step, rows in known if step is not None]
    if not found or not found[-1][1]:
        return None
    step, rows = found[-1]
    curves = {}
    for signal in SIGNALS:
        points = [(value, row["right"]) for row in rows
                  if (value := number(row.get(signal))) is not None and isinstance(row.get("right"), bool)]  # fmt: skip
        if points:
            curves[signal] = {"bins": bins(points), "coverage": coverage(points)}
    table = [
        {"id": text(row.get("id"))[:200], "answer": text(row.get("answer"))[:200],
         "right": row["right"] if isinstance(row.get("right"), bool) else None,
         **{signal: number(row.get(signal)) for signal in SIGNALS}}
        for row in rows[:SHOWN]
    ]  # fmt: skip
    return {"step": step, "looks": len(found), "count": len(rows), "rows": table, "curves": curves}


def bins(points: Sequence[tuple[float, bool]]) -> list[tuple[float, float, int]]:
    """Mean signal, fraction right and number of the rows in each bin of equal width.

    >>> bins([(0.1, False), (0.15, True), (0.9, True)])
    [(0.125, 0.5, 2), (0.9, 1.0, 1)]
    """
    found = []
    for number_ in range(BINS):
        inside = [p for p in points if min(int(p[0] * BINS), BINS - 1) == number_]
        if inside:
            mean = sum(value for value, _ in inside) / len(inside)
            found.append((round(mean, 4), round(sum(right for _, right in inside) / len(inside), 4), len(inside)))
    return found


def coverage(points: Sequence[tuple[float, bool]]) -> list[tuple[float, float]]:
    """Fraction right of the surest rows, by the fraction of rows that they are. Rows of one signal are kept together.

    >>> coverage([(0.9, True), (0.5, False), (0.5, True), (0.1, False)])
    [(0.25, 1.0), (0.75, 0.6667), (1.0, 0.5)]
    """
    ordered = sorted(points, key=lambda point: -point[0])
    found = []
    for count in range(1, len(ordered) + 1):
        if count == len(ordered) or ordered[count][0] != ordered[count - 1][0]:
            right = sum(right for _, right in ordered[:count])
            found.append((round(count / len(ordered), 4), round(right / count, 4)))
    return found
