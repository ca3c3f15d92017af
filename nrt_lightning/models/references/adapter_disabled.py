"""The base under an adapter as a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.references.base import Reference

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Rollouts


class AdapterDisabledReference(Reference):
    """The policy without its adapter: exactly the base, without a second copy of it."""

    second_model = False

    def __init__(self) -> None:
        self.policies: list[Policy] = []  # a list, so that modules which hold this object do not register it

    @override
    def check(self, policy: Policy) -> None:
        if policy.adapter is None:
            raise InputError(
                "reference is AdapterDisabledReference, but policy.adapter is null. Set policy.adapter, for instance "
                "to LoRA, or reference to FrozenReference or QuantizedReference."
            )

    @override
    def load(self, policy: Policy) -> None:
        self.check(policy)
        self.policies = [policy]

    @override
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        policy = self.policies[0]
        with policy.evaluating(), policy.adapter_disabled():
            return policy.score(rollouts).logprobs

    def __repr__(self) -> str:
        return "AdapterDisabledReference()"
