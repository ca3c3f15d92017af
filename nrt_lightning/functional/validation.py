"""Checks of settings and shapes. The errors name the field, the value and the fix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.errors import InputError

DTYPES = ("float32", "bfloat16", "float16")  # of model weights


def check_choice(field: str, value: object, known: Iterable[str]) -> None:
    """Raise `InputError` unless `value` is one of `known`.

    Args:
        field: name of the setting, for the message.
        value: its value.
        known: the allowed values.

    Raises:
        InputError: if `value` is not one of `known`.

    Example:
        >>> check_choice("scale", "std", ["std", "none"])
        >>> check_choice("scale", "var", ["std", "none"])
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: scale='var' is not known. Use one of: 'std', 'none'.
    """
    known = list(known)
    if value not in known:
        raise InputError(f"{field}={value!r} is not known. Use one of: {', '.join(map(repr, known))}.")


def check_number(field: str, value: object, *, infinite: bool = False) -> None:
    """Raise `InputError` unless `value` is a finite number. A bool is none, nor is null or a text.

    Args:
        field: name of the setting, for the message.
        value: its value.
        infinite: allow infinity.

    Raises:
        InputError: if the value is no such number, or NaN.

    Example:
        >>> check_number("cap", float("inf"), infinite=True)
        >>> check_number("rows", None)
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: rows=None is not a finite number. Give a number.
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and value == value  # NaN is not itself
    if not number or (not infinite and value in (math.inf, -math.inf)):
        raise InputError(f"{field}={value!r} is not a {'' if infinite else 'finite '}number. Give a number.")


def check_at_least(field: str, value: float, bound: float, *, above: bool = False, infinite: bool = False) -> None:
    """Raise `InputError` unless `value >= bound`.

    Args:
        field: name of the setting, for the message.
        value: its value.
        bound: the lower bound.
        above: refuse `bound` itself too.
        infinite: allow infinity.

    Raises:
        InputError: if the value is out of range or no number.

    Example:
        >>> check_at_least("eps", 0.0, 0)
        >>> check_at_least("divisor", 0.0, 0, above=True)
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: divisor=0.0 is out of range. Use a number above 0.
    """
    check_number(field, value, infinite=infinite)
    if value < bound or (above and value == bound):
        raise InputError(
            f"{field}={value!r} is out of range. Use a number {'above' if above else 'of at least'} {bound}."
        )


def check_fraction(field: str, value: float, *, above: bool = False) -> None:
    """Raise `InputError` unless `0 <= value <= 1`.

    Args:
        field: name of the setting, for the message.
        value: its value.
        above: refuse 0 itself too.

    Raises:
        InputError: if the value is out of range or no number.

    Example:
        >>> check_fraction("momentum", 0.99)
        >>> check_fraction("momentum", 99)
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: momentum=99 is out of range. Use a number from 0 to 1.
    """
    check_number(field, value)
    if not 0 <= value <= 1 or (above and value == 0):
        raise InputError(
            f"{field}={value!r} is out of range. Use a number {'above 0, at most' if above else 'from 0 to'} 1."
        )


def check_interval(low_field: str, low: float, high_field: str, high: float) -> None:
    """Raise `InputError` unless `0 <= low <= high`.

    Args:
        low_field: name of the lower bound, for the message.
        low: the lower bound.
        high_field: name of the upper bound, for the message.
        high: the upper bound, possibly infinite.

    Raises:
        InputError: if the bounds are out of order, or no numbers.

    Example:
        >>> check_interval("ratio_low", 0.8, "ratio_high", 1.28)
        >>> check_interval("ratio_low", 2.0, "ratio_high", 1.28)
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: ratio_high=1.28 is below ratio_low=2.0. Use 0 <= ratio_low <= ratio_high.
    """
    check_at_least(low_field, low, 0)
    check_number(high_field, high, infinite=True)
    if not high >= low:
        raise InputError(f"{high_field}={high!r} is below {low_field}={low!r}. Use 0 <= {low_field} <= {high_field}.")


def check_same_shape(name: str, tensor: Tensor, like_name: str, like: Tensor, fix: str = "") -> None:
    """Raise `InputError` unless two tensors have the same shape; broadcasting would hide the mistake.

    Args:
        name: name of the first tensor, for the message.
        tensor: the first tensor.
        like_name: name of the second tensor, for the message.
        like: the second tensor.
        fix: a sentence that says how to obtain the right shape.

    Raises:
        InputError: if the shapes differ.

    Example:
        >>> import torch
        >>> check_same_shape("mask", torch.ones(2, 3), "values", torch.ones(2, 4))
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: mask has shape [2, 3] but values has [2, 4].
    """
    if tensor.shape != like.shape:
        message = f"{name} has shape {list(tensor.shape)} but {like_name} has {list(like.shape)}."
        raise InputError(f"{message} {fix}".rstrip())


def check_mask(mask: Tensor, values: Tensor) -> None:
    """Raise `InputError` unless a mask is bool and has the shape of the values.

    Raises:
        InputError: if it has another shape or dtype.

    Example:
        >>> import torch
        >>> check_mask(torch.tensor([1, 0]), torch.ones(2))
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: mask has dtype torch.int64. Give a bool tensor, such as mask.bool().
    """
    check_same_shape("mask", mask, "values", values)
    if mask.dtype != torch.bool:
        raise InputError(f"mask has dtype {mask.dtype}. Give a bool tensor, such as mask.bool().")


def check_returned(source: str, value: object, shape: Sequence[int], meaning: str, *, boolean: bool = False) -> None:
    """Raise `InputError` unless a part of the user's returned a tensor of the right shape.

    Args:
        source: name of the part and its method, for the message.
        value: that it returned.
        shape: that it should have.
        meaning: what the tensor holds, for the message.
        boolean: it must be of dtype bool.

    Raises:
        InputError: if it is something else.

    Example:
        >>> check_returned("MyFilter.keep", torch.ones(3), [3], "whether to keep each group", boolean=True)
        Traceback (most recent call last):
        nrt_lightning.errors.InputError: MyFilter.keep returned a float32 tensor of shape [3]. Return a bool tensor ...
    """
    if isinstance(value, Tensor):
        if list(value.shape) == list(shape) and (not boolean or value.dtype == torch.bool):
            return
        got = f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {list(value.shape)}"
    else:
        got = f"a {type(value).__name__}"
    kind = "bool tensor" if boolean else "tensor"
    raise InputError(f"{source} returned {got}. Return a {kind} of shape {list(shape)}: {meaning}.")


def check_tokenizer(tokenizer: Any) -> None:
    """Raise `InputError` unless a tokenizer of transformers has an end token and a padding token."""
    name = f"The tokenizer {tokenizer.name_or_path!r}"
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{name} has no eos_token, so answers could not end. Set tokenizer.eos_token to the token that ends the "
            "model's texts, or eos_token in tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"{name} has no pad_token. Set policy.pad_token or tokenizer.pad_token to an existing token, for instance "
            f"{tokenizer.eos_token!r}: padding is masked."
        )


def declared_logprobs(logprobs: Tensor | None, reader: str) -> Tensor:
    """The answers' log-probs, for a reader that has declared that it needs them.

    Raises:
        InputError: they were not computed, because `needs_answer_logprobs` is False.

    >>> declared_logprobs(None, "filter")
    Traceback (most recent call last):
    nrt_lightning.errors.InputError: The filter reads answer_logprobs, but its needs_answer_logprobs is False. Set ...
    """
    if logprobs is None:
        raise InputError(f"The {reader} reads answer_logprobs, but its needs_answer_logprobs is False. Set it to True.")
    return logprobs
