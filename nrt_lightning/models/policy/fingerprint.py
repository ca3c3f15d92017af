"""The check that a checkpoint belongs to a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


def check_same_policy(saved: dict[str, Any], policy: Policy) -> None:
    """Raise `InputError` if architecture, vocabulary, marker, adapter or base differ from the checkpoint's.

    Args:
        saved: fingerprint of the checkpoint's policy.
        policy: the policy into which the checkpoint would be loaded.
    """
    here = policy.fingerprint()
    other = [f"{key} {saved[key]} (here {value})" for key, value in here.items() if saved.get(key, value) != value]
    if other:
        seed = " Random weights also need the same seed_everything." if policy.weights == "random" else ""
        raise InputError(
            f"The checkpoint belongs to another model than {policy.source!r}: {', '.join(other)}. Set policy.model to "
            f"the model it was trained from, with the same adapter and quantization.{seed}"
        )
