"""The check that a checkpoint belongs to a policy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.loading import shape_of
from nrt_lightning.structures import Markup

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

ENDS = ("end", "end_ids", "end_token")  # fields of `Markup`


def fingerprint(policy: Policy) -> dict[str, Any]:
    """The properties in which a checkpoint must agree with a policy."""
    shape = shape_of(policy.config) | {"vocabulary": len(policy.tokenizer), "markup": dataclasses.asdict(policy.markup)}
    if policy.adapter is None:
        return shape | {"adapter": None}
    # The checkpoint holds nothing of the base, which must be the same.
    kept = {"adapter": policy.adapter.identity(), "quantization": repr(policy.quantization), "base": policy.base}
    return shape | kept


def check_same_policy(saved: dict[str, Any], policy: Policy) -> None:
    """Raise `InputError` if architecture, vocabulary, marker, adapter or base differ from the checkpoint's.

    A policy that knows no template and has no `answer_end` takes the end of answers from the checkpoint.

    Args:
        saved: fingerprint of the checkpoint's policy.
        policy: the policy into which the checkpoint would be loaded.
    """
    if not isinstance(saved, dict) or not isinstance(saved.get("markup", {}), dict):
        raise InputError(f"The checkpoint is damaged: the policy in it is {str(saved)[:60]!r}. Give another.")
    if policy.turn_end is None and policy.settings["answer_end"] is None and "markup" in saved:
        policy.markup = dataclasses.replace(policy.markup, **{name: saved["markup"][name] for name in ENDS})
    here = fingerprint(policy)
    differ = {key: (saved[key], value) for key, value in here.items() if saved.get(key, value) != value}
    if "markup" in differ:
        before, now = differ["markup"]
        differ["markup"] = str(Markup(**before)), str(Markup(**now))
    other = [f"{key} {before} (here {now})" for key, (before, now) in differ.items()]
    if other:
        seed = " Random weights also need the same seed_everything." if policy.weights == "random" else ""
        raise InputError(
            f"The checkpoint belongs to another model than {policy.source!r}: {', '.join(other)}. Set policy.model to "
            f"the model it was trained from, with the same adapter and quantization.{seed}"
        )
