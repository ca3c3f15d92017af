"""A function as a signal."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional import check_at_least
from nrt_lightning.signals.base import RolloutText, TextSignal
from nrt_lightning.signals.failures import read_each


@dataclass(frozen=True)
class FunctionSignal(TextSignal):
    """A function, given by its import path, that takes a `RolloutText` and returns a number.

    A rollout is left out of its group if the function raises or returns something else, or a number below `minimum`.

    Args:
        function: import path, `package.module.function`.
        minimum: the lowest value it returns. Geometric means require at least 0.
        policy_answers: sample an answer of the policy after every trace, for the function to read.
        concurrency: calls at a time. Above 1 the function is called from threads, for judges behind HTTP.
        batched: the function takes a list of `RolloutText` and returns a list of numbers.

    Raises:
        InputError: if the function does not exist, or a batched function returns another number of values.

    Example:
        >>> FunctionSignal("math.floor").minimum
        -inf
        >>> FunctionSignal("math.flor")
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: function='math.flor': math has no function 'flor'. Did you mean 'floor'?
    """

    needs_reference_answer = False  # the function decides
    function: str
    minimum: float = float("-inf")
    policy_answers: bool = field(default=True, kw_only=True)
    concurrency: int = 1
    batched: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        imported(self.function)
        check_at_least("concurrency", self.concurrency, 1)
        if self.batched and self.concurrency > 1:
            raise InputError(f"concurrency={self.concurrency} has no effect with batched=true. Set only one of them.")

    @property
    @override
    def needs_policy_answers(self) -> bool:
        return self.policy_answers

    @override
    def read(self, text: RolloutText) -> float:
        return self.read_all([text])[0] if self.batched else self.number(imported(self.function)(text))

    @override
    def read_all(self, texts: list[RolloutText]) -> list[float]:
        if not self.batched:
            return super().read_all(texts)
        values = imported(self.function)(texts)
        if len(values) != len(texts):
            raise InputError(f"{self.function} returned {len(values)} values for {len(texts)} rollouts.")
        return read_each(self.number, values)

    def number(self, value: Any) -> float:
        """What the function returned, as a float."""
        number = float(value)
        if number < self.minimum:
            raise ValueError(f"{self.function} returned {value!r}, which is below minimum={self.minimum}")
        return number


def imported(path: str) -> Callable[..., Any]:
    """The function at an import path.

    Raises:
        InputError: there is no such module or function.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise InputError(f"function={path!r} is not an import path. Give package.module.function.")
    try:
        home = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"function={path!r}: the module {module!r} cannot be imported ({error}).") from error
    function = getattr(home, name, None)
    if not callable(function):
        raise InputError(f"function={path!r}: {module} has no function {name!r}.{nearest(name, dir(home))}")
    return function
