"""Whether the policy's own answer is mathematically the reference answer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from nrt_lightning.errors import InputError
from nrt_lightning.signals.base import RolloutText, TextSignal


@dataclass(frozen=True)
class MathVerify(TextSignal):
    """1 if the math-verify library finds the policy's own answer equal to the reference answer, else 0.

    It reads LaTeX and plain expressions, so that 0.5 equals a half. Needs `pip install 'nrt-lightning[math]'`.

    Args:
        forced: count answers after a marker that had to be forced too.

    Raises:
        InputError: if the library is not installed.
    """

    forced: bool = False
    minimum = 0.0

    def __post_init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise InputError(
                "The signal MathVerify needs the math-verify library. Install it with "
                "pip install 'nrt-lightning[math]', or use ExactMatch."
            )

    def read(self, text: RolloutText) -> float:
        """See `TextSignal.read`."""
        from math_verify import parse, verify

        if not (text.marker_emitted or self.forced):
            return 0.0
        # No time limit: its own uses signals, which work in the main thread alone.
        answer, own = (parse(t, parsing_timeout=None) for t in (text.answer, text.own_answer))
        return float(verify(answer, own, timeout_seconds=None))
