"""Checks of parts that a user gives or writes: their types, and what they return."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, get_args, get_origin, get_type_hints

from torch import Tensor

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional.validation import check_returned
from nrt_lightning.rewards import RewardAggregator
from nrt_lightning.structures import TraceReward

log = logging.getLogger(__name__)


def check_types(parts: Any) -> None:
    """Check that the fields of a dataclass have the types of their annotations.

    Raises:
        InputError: a field is a class instead of an instance, a name, or something else.
    """
    hints = get_type_hints(type(parts))
    for field in dataclasses.fields(parts):
        name, value, hint = f"model.{field.name}", getattr(parts, field.name), hints[field.name]
        if get_origin(hint) is not list:
            check_type(name, value, get_args(hint) or (hint,))
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                check_type(f"{name}[{index}]", item, get_args(hint))
        else:
            raise InputError(f"{name} is {shown(value)}, which is no list. Put it into one, [...].")


def check_type(name: str, value: object, kinds: tuple[type, ...]) -> None:
    """Check that a setting is an instance of a class.

    Args:
        name: of the setting.
        value: its value.
        kinds: the classes; the first one is named.

    Raises:
        InputError: it is something else.

    Example:
        >>> from nrt_lightning.rewards import GeometricMean
        >>> check_type("model.aggregator", GeometricMean, (RewardAggregator,))
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: model.aggregator is the class GeometricMean. Give an instance, GeometricMean().
    """
    if isinstance(value, kinds):
        return
    kind = kinds[0].__name__
    if isinstance(value, type) and issubclass(value, kinds):
        raise InputError(f"{name} is the class {value.__name__}. Give an instance, {value.__name__}().")
    fix = f"Give an instance of {kind}." if kinds[0].__module__ != "builtins" else f"Give a {kind}."
    if isinstance(value, str):
        subclasses: list[type] = kinds[0].__subclasses__()
        fix += nearest(value, [f"{other.__name__}()" for other in subclasses])
    raise InputError(f"{name} is {shown(value)}, which is no {kind}. {fix}")


def shown(value: object) -> str:
    """A value, as text that is short enough for a message and names no address.

    >>> shown({"lr": 0.1}), shown(object())
    ("{'lr': 0.1}", 'an object of type object')
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 and " at 0x" not in text else f"an object of type {type(value).__name__}"


def reward_by(
    aggregator: RewardAggregator, logprobs: Tensor, mask: Tensor, baseline: Tensor | None, group_ids: Tensor
) -> TraceReward:
    """The rewards of an aggregator, which are checked; a warning counts those that are NaN.

    Args:
        aggregator: of the method.
        logprobs: `[N, T]` of the answers.
        mask: `[N, T]` bool.
        baseline: `[N, T]` after the empty trace; None if it is not needed.
        group_ids: `[N]`, for the warning.

    Raises:
        InputError: there is not one reward for each rollout, or not one weight for each token.
    """
    reward, name = aggregator(logprobs, mask, baseline), type(aggregator).__name__
    if not isinstance(reward, TraceReward):
        raise InputError(
            f"{name} returned a {type(reward).__name__}. Return TraceReward(value, token_weights), of shapes "
            f"{[len(mask)]} and {list(mask.shape)}."
        )
    check_returned(f"{name} (value)", reward.value, mask.shape[:1], "one reward for each rollout")
    check_returned(f"{name} (token_weights)", reward.token_weights, mask.shape, "one weight for each answer token")
    if failed := reward.value.isnan().nonzero().flatten().tolist():
        log.warning(
            "aggregator %s gave NaN for %d of %d rollouts, first for question %d of the batch. They are left out.",
            name, len(failed), len(mask), group_ids[failed[0]],
        )  # fmt: skip
    return reward


def advantages_by(estimator: AdvantageEstimator, values: Tensor, group_ids: Tensor, baseline: Tensor | None) -> Tensor:
    """The advantages of an estimator, `[N]`, which are checked.

    Raises:
        InputError: there is not one advantage for each rollout.
    """
    advantages = estimator(values, group_ids, baseline)
    check_returned(type(estimator).__name__, advantages, values.shape, "one advantage for each rollout")
    return advantages
