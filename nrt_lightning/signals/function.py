"""A function of the user's own as a signal."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.signals.base import RolloutText, TextSignal


@dataclass(frozen=True)
class FunctionSignal(TextSignal):
    """A function by its import path: it is given one rollout as text, a `RolloutText`, and returns a number.

    Args:
        function: import path, `package.module.function`.
        minimum: the lowest value it returns; a geometric mean needs 0 or more.
        own_answers: let the policy write an answer of its own after every trace, for the function to read.

    Raises:
        InputError: if there is no such function, and in training if it returns no number or one below `minimum`.

    Example:
        >>> FunctionSignal("math.floor").minimum
        -inf
        >>> FunctionSignal("math.flor")
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: function='math.flor': math has no function 'flor'. Did you mean 'floor'?
    """

    function: str
    minimum: float = float("-inf")
    own_answers: bool = True

    def __post_init__(self) -> None:
        imported(self.function)

    @property
    def needs_policy_answers(self) -> bool:
        """Whether the policy must write an answer of its own after every trace."""
        return self.own_answers

    def read(self, text: RolloutText) -> float:
        """See `TextSignal.read`."""
        value = imported(self.function)(text)
        if not isinstance(value, int | float) or math.isnan(value) or value < self.minimum:
            raise InputError(
                f"{self.function} returned {value!r} for the trace {text.trace[:80]!r}: a signal is a number of at "
                f"least its minimum, {self.minimum}. Mend the function, or set `minimum`."
            )
        return float(value)


def imported(path: str) -> Callable[[RolloutText], Any]:
    """The function at an import path.

    Raises:
        InputError: naming what does not exist.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise InputError(f"function={path!r} is no import path. Give package.module.function.")
    try:
        home = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"function={path!r}: the module {module!r} cannot be imported ({error}).") from error
    function = getattr(home, name, None)
    if not callable(function):
        raise InputError(f"function={path!r}: {module} has no function {name!r}.{nearest(name, dir(home))}")
    return function
