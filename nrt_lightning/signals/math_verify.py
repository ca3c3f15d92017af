"""Mathematical equality of the policy's answer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.signals.base import RolloutText, TextSignal


@dataclass(frozen=True)
class MathVerify(TextSignal):
    """1 if the policy's answer is mathematically equal to the reference answer, else 0.

    The math-verify library parses LaTeX and plain expressions, so 0.5 equals 1/2. Requires
    `pip install 'nrt-lightning[math]'`.

    Args:
        forced: count answers after a forced marker too.

    Raises:
        InputError: if the library is not installed.
    """

    forced: bool = field(default=False, kw_only=True)
    minimum = 0.0

    def __post_init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise InputError(
                "The signal MathVerify needs the math-verify library. Install it with "
                "pip install 'nrt-lightning[math]', or use ExactMatch."
            )

    @override
    def read(self, text: RolloutText) -> float:
        from math_verify import parse, verify

        if not (text.marker_emitted or self.forced):
            return 0.0
        # No time limits: the library sets them by OS signals, which work in the main thread only.
        reference, written = (parse(t, parsing_timeout=None) for t in (text.answer, text.policy_answer))
        return float(verify(reference, written, timeout_seconds=None))
