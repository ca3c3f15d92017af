"""Questions with the answers that a policy wrote, as they stand in a results file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class SampledAnswer:
    """One trace and the answer after it; an answer alone of a policy that writes no traces."""

    trace: str | None
    answer: str
    marker_emitted: bool | None  # False where the marker was forced; None without a trace
    ended: bool  # False where the limit cut the answer
    trace_tokens: int | None
    values: dict[str, float | None] = field(default_factory=dict)  # by metric; None where it failed
    confidence: float | None = None  # probability of the reference answer after the trace


@dataclass
class AnsweredQuestion:
    """A question with K answers of the policy."""

    id: str
    question: str
    reference: str | None  # the reference answer; None for rows without one
    samples: list[SampledAnswer]  # K
    confidence_without_trace: float | None = None  # probability of the reference answer after the empty trace

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> AnsweredQuestion:
        """The question of such values."""
        return cls(**fields | {"samples": [SampledAnswer(**sample) for sample in fields["samples"]]})
