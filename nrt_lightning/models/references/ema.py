"""A reference that moves towards the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from nrt_lightning.functional import check_at_least, check_fraction
from nrt_lightning.models.references.base import FrozenReference, copy_of
from nrt_lightning.models.sharding.base import plain_name

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class EMAReference(FrozenReference):
    """A second model that moves towards the policy: `ref <- (1 - update_rate) ref + update_rate policy`.

    It starts as the policy before training and is updated every `every_n_steps` optimizer steps. The KL term then
    limits how fast the policy changes, not how far. `update_rate=1` is the hard update of TR-DPO (arXiv 2404.09656),
    smaller rates are its soft update. Checkpoints hold the reference's weights beside the policy's, so that a resumed
    run continues with the same reference.

    Args:
        update_rate: the fraction of the way to the policy, from 0 to 1.
        every_n_steps: optimizer steps between two updates.
        dtype: of its weights. 16 bits would round the updates of a small rate to zero.

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, update_rate: float = 0.6, every_n_steps: int = 512, dtype: str | None = "float32") -> None:
        super().__init__(dtype=dtype)
        check_fraction("update_rate", update_rate)
        check_at_least("every_n_steps", every_n_steps, 1)
        self.update_rate = update_rate
        self.every_n_steps = every_n_steps
        self.trained: set[str] = set()  # names of the weights that are updated

    @override
    def load(self, policy: Policy) -> None:
        super().load(policy)
        self.trained = {plain_name(name) for name, weight in policy.named_parameters() if weight.requires_grad}

    @override
    def build(self, policy: Policy) -> Policy:
        if not policy.readable:
            return copy_of(policy)
        # With the policy's adapter: its weights are the ones that are updated.
        return policy.sibling(dtype=self.dtype or policy.settings["dtype"]).load(self.layout(policy))

    @override
    def update(self, policy: Policy, step: int) -> None:
        if step % self.every_n_steps or not self.frozen:
            return
        self.frozen[0].sharding.blend(self.frozen[0], policy, self.trained, self.update_rate)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.frozen[0].sharding.read(self.frozen[0], self.trained) if self.frozen else {}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.frozen and state:
            self.frozen[0].sharding.write(self.frozen[0], state)

    def __repr__(self) -> str:
        return f"EMAReference(update_rate={self.update_rate}, every_n_steps={self.every_n_steps}, dtype={self.dtype!r})"
