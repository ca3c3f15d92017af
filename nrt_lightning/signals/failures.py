"""Signals that fail for some rollouts: reading one by one, and leaving out or raising."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_same_shape

log = logging.getLogger(__name__)
T = TypeVar("T")
OnError = Literal["leave_out", "raise"]


class ReadErrors(Exception):
    """A signal could not read some of the rollouts.

    Args:
        values: one for each rollout, NaN for those that were not read.
        errors: by index of the rollout.
    """

    def __init__(self, values: list[float], errors: dict[int, Exception]) -> None:
        first = min(errors)
        super().__init__(f"{len(errors)} of {len(values)} rollouts, first rollout {first}: {errors[first]!r}")
        self.values = values
        self.errors = errors


def read_each(function: Callable[[T], float], items: Iterable[T], concurrency: int = 1) -> list[float]:
    """Call a function with every item, in up to `concurrency` threads, and return the values in the order of the items.

    Raises:
        ReadErrors: the function raised for some items. The others have been read.
        InputError: raised by the function; it is not specific to an item.

    Example:
        >>> read_each(len, ["a", "bcd"], concurrency=2)
        [1.0, 3.0]
    """

    def attempt(item: T) -> float | Exception:
        try:
            return float(function(item))
        except InputError:
            raise
        except Exception as error:
            return error

    with ThreadPoolExecutor(concurrency) as pool:  # starts no thread unless map uses it
        results = list((pool.map if concurrency > 1 else map)(attempt, items))
    errors = {n: result for n, result in enumerate(results) if isinstance(result, Exception)}
    values = [math.nan if isinstance(result, Exception) else result for result in results]
    if errors:
        raise ReadErrors(values, errors)
    return values


def guarded(
    name: str,
    compute: Callable[[], Tensor | list[float]],
    like: Tensor,
    question: Callable[[int], str],
    on_error: OnError,
) -> Tensor:
    """Compute a signal; return its values `[N]` in at least float32, NaN for the rollouts that it failed for.

    Args:
        name: name of the signal, for messages.
        compute: returns the values, `[N]`.
        like: any tensor of the N rollouts.
        question: returns the question of a rollout, for messages.
        on_error: "leave_out" logs one warning if the signal failed, "raise" raises.

    Raises:
        InputError: there is not one value for each rollout, or the signal failed and `on_error` is "raise".
    """
    errors: dict[int, Exception] = {}
    try:
        values = torch.as_tensor(compute(), device=like.device)
    except (InputError, torch.OutOfMemoryError):  # no fault of a rollout
        raise
    except ReadErrors as failure:
        values, errors = torch.tensor(failure.values, device=like.device), failure.errors
    except Exception as error:
        values = torch.full_like(like, math.nan, dtype=torch.float32)
        errors = dict.fromkeys(range(len(like)), error)
    check_same_shape(f"signal {name}", values, "the rollouts", like, "Return one value for each rollout.")
    if failed := values.isnan().nonzero().flatten().tolist():
        cause = errors.get(failed[0])
        text = f"signal {name!r} failed for {len(failed)} of {len(like)} rollouts, first for question "
        text += f"{question(failed[0])}: {'NaN' if cause is None else repr(cause)[:500]}"
        if on_error == "raise":
            raise InputError(f"{text}. Fix the signal, or set on_error to leave_out.") from cause
        log.warning("%s. They are left out (on_error=leave_out).", text)
    return values.float() if values.dtype in (torch.bool, torch.float16, torch.bfloat16) else values
