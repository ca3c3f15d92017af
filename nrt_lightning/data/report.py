"""What was found in the rows: those that were dropped, and those that are kept but probably meant otherwise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

log = logging.getLogger(__name__)


@dataclass
class EncodingReport:
    """Origins of the rows that were dropped: a text is too long, or the answer holds the end of answers."""

    total: int
    long_prompts: list[str] = field(default_factory=list)
    long_answers: list[str] = field(default_factory=list)
    ended_answers: list[str] = field(default_factory=list)
    control_texts: list[str] = field(default_factory=list)  # kept: their control tokens are read as text
    unknown_texts: list[str] = field(default_factory=list)  # kept: a text has unknown tokens only

    @property
    def origins(self) -> list[str]:
        """All dropped rows. A row with several faults counts once."""
        return self.long_prompts + self.long_answers + self.ended_answers

    @property
    def dropped(self) -> int:
        """Number of dropped rows."""
        return len(self.origins)

    @property
    def share(self) -> float:
        """Fraction of the rows that were dropped."""
        return self.dropped / max(self.total, 1)

    @property
    def dropped_text(self) -> str:
        """How many rows were dropped, and the first of them."""
        why = "as too long" if not self.ended_answers else "as too long or for an answer that holds its end"
        return f"{self.dropped} of {self.total} rows were dropped {why}, first: " + ", ".join(self.first)

    @property
    def first(self) -> list[str]:
        """Origins of the first dropped rows."""
        return self.origins[:3]


def check_dropped(report: EncodingReport, name: str, limits: tuple[int, int], max_dropped_share: float) -> None:
    """Log the dropped rows; raise if they are all rows or more than allowed.

    Args:
        report: of the rows.
        name: of the split.
        limits: `max_prompt_tokens` and `max_answer_tokens`.
        max_dropped_share: largest fraction of the rows that may be dropped.

    Raises:
        InputError: more rows were dropped.
    """
    counts = (
        f"{len(report.long_prompts)} prompts exceed max_prompt_tokens={limits[0]}, "
        f"{len(report.long_answers)} answers exceed max_answer_tokens={limits[1]}"
    )
    if report.ended_answers:
        counts += f", {len(report.ended_answers)} answers hold what ends an answer (policy.answer_end)"
    first = ", ".join(report.first)
    if report.share > max_dropped_share or report.dropped == report.total:
        raise InputError(
            f"{name}: {report.dropped} of {report.total} rows ({report.share:.1%}) cannot be used "
            f"(max_dropped_share={max_dropped_share}): {counts}; first: {first}. "
            "Raise the limits or max_dropped_share, or correct the rows."
        )
    message = f"{name}: {report.total - report.dropped} rows encoded, {report.dropped} dropped"
    if report.dropped:
        log.warning("%s (%.1f%%): %s; first: %s.", message, 100 * report.share, counts, first)
    else:
        log.info("%s.", message)


def log_kept(rows: Sequence[Row], report: EncodingReport, name: str) -> None:
    """Log the rows that are kept but probably meant otherwise, each kind with its number and its first rows.

    Args:
        rows: of the split, without the dropped ones.
        report: of the encoding.
        name: of the split.
    """
    control, unknown = report.control_texts, report.unknown_texts
    findings = [
        (control, "rows hold text that is a control token, which is read as text"),
        (unknown, "rows have a question or answer of tokens that the tokenizer does not know"),
        (repeated_ids(rows), "rows have the id of another row"),
        (conflicts(rows), "rows have the question of another row, and another answer"),
    ]
    for origins, what in findings:
        if origins:
            log.warning(
                "%s: %d %s: %s.", name, len(origins), what,
                ", ".join(origins[:3]) + (" and others" if len(origins) > 3 else ""),
            )  # fmt: skip


def repeated_ids(rows: Sequence[Row]) -> list[str]:
    """Origins of the rows whose id an earlier row has.

    >>> repeated_ids([Row("a", [], origin="f:1"), Row("b", [], origin="f:2"), Row("a", [], origin="f:3")])
    ["f:3 ('a' as in f:1)"]
    """
    first: dict[str, Row] = {}
    found = []
    for row in rows:
        if (other := first.setdefault(row.id, row)) is not row:
            found.append(f"{row.origin} ({row.id!r} as in {other.origin})")
    return found


def conflicts(rows: Sequence[Row]) -> list[str]:
    """Origins of the rows with the question of an earlier row and another answer.

    >>> question = [{"role": "user", "content": "1 + 1?"}]
    >>> conflicts([Row("0", question, answer, f"f:{answer}") for answer in ("2", "3", "2")])
    ["f:3 ('3', but '2' in f:2)"]
    """
    first: dict[tuple[str, ...], Row] = {}
    found = []
    for row in rows:
        key = tuple(text for turn in row.messages for text in (turn["role"], turn["content"]))
        other = first.setdefault(key, row)
        if row.answer is not None and other.answer is not None and row.answer.strip() != other.answer.strip():
            found.append(f"{row.origin} ({row.answer[:30]!r}, but {other.answer[:30]!r} in {other.origin})")
    return found
