"""The base under an adapter, as a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nrt_lightning.errors import InputError
from nrt_lightning.models.references.base import Reference

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Rollouts


class AdapterDisabledReference(Reference):
    """The policy without its adapter: the base itself, bit for bit, and no second copy of it."""

    second_model = False

    def __init__(self) -> None:
        self.policies: list[Policy] = []  # a list: a module would be registered by whoever holds this object

    def check(self, policy: Policy) -> None:
        """See `Reference`."""
        if policy.adapter is None:
            raise InputError(
                "reference is AdapterDisabledReference, but the policy has no adapter to disable. Give policy.adapter "
                "one, for instance LoRA, or set reference to FrozenReference or QuantizedReference."
            )

    def load(self, policy: Policy) -> None:
        """See `Reference`."""
        self.check(policy)
        self.policies = [policy]

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """See `Reference`."""
        policy = self.policies[0]
        with policy.evaluating(), policy.adapter_disabled():
            return policy.score(rollouts).logprobs

    def __repr__(self) -> str:
        return "AdapterDisabledReference()"
