"""Sizes of a step."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lengths:
    """Largest lengths of the rows of a micro-batch, in tokens."""

    prompts: int  # B
    group_size: int  # K
    prompt: int  # P
    trace: int
    answer: int  # T, with the end token
    thinking: bool = field(default=True, kw_only=True)  # False: the answer follows the prompt without trace and marker

    @property
    def rollouts(self) -> int:
        """N."""
        return self.prompts * self.group_size

    @property
    def completion(self) -> int:
        """C."""
        return self.trace + 1 + self.answer if self.thinking else self.answer
