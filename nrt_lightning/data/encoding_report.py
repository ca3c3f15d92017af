"""What encoding did to the rows."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class EncodingReport:
    """Origins of the rows that were dropped: a text is too long, or the answer holds the end of answers."""

    total: int
    long_prompts: list[str] = field(default_factory=list)
    long_answers: list[str] = field(default_factory=list)
    ended_answers: list[str] = field(default_factory=list)
    control_texts: list[str] = field(default_factory=list)  # kept: their control tokens are read as text

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
