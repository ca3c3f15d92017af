"""Whether a checkpoint is of the policy that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


def check_same_policy(theirs: dict[str, Any], policy: Policy) -> None:
    """Refuse a checkpoint of another policy.

    Args:
        theirs: the fingerprint of the checkpoint's policy.
        policy: that is here.

    Raises:
        InputError: architecture, vocabulary, marker, adapter or base are others.
    """
    ours = policy.fingerprint()
    other = [f"{key} {theirs[key]} (here {value})" for key, value in ours.items() if theirs.get(key, value) != value]
    if other:
        raise InputError(
            f"The checkpoint is of another model than {policy.source!r}: {', '.join(other)}. {mend(policy)}"
        )


def mend(policy: Policy) -> str:
    """How to get the policy of a checkpoint."""
    if not policy.settings:
        return "Wrap the model it was trained from, with the same adapter and quantization."
    seed = "" if policy.readable else " Its random weights follow from the seed: give the same seed_everything."
    return f"Give the model it was trained from as policy.model, with the same adapter and quantization.{seed}"
