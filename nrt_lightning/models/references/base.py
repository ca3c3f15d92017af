"""References: frozen models that the policy is held against.

A reference is never a submodule of the module that uses it, so it is in no optimizer, checkpoint or sharding unit.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.sharding.base import NoSharding, Sharding

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.structures import Rollouts


class Reference(ABC):
    """A frozen model."""

    available: bool = True
    second_model: bool | None = None  # it holds weights besides the policy's; None: unknown to `nrt-lightning plan`

    def check(self, policy: Policy) -> None:  # noqa: B027  (most have nothing to refuse)
        """Refuse a policy that this cannot be the reference of, before weights are read."""

    @abstractmethod
    def load(self, policy: Policy) -> None:
        """Read the weights; called once, before a checkpoint is restored into the policy."""

    @abstractmethod
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """Log-probs of the completions' tokens, without gradient. -> [N, C]"""

    def follow(self, policy: Policy, step: int) -> None:  # noqa: B027  (most stay as they are)
        """Move with the policy; called after optimizer step number `step`, counted from 1."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold; nothing where the weights can be read again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from a checkpoint."""


def copy_of(policy: Policy) -> Policy:
    """A copy of a policy whose weights cannot be read again.

    Raises:
        InputError: the weights are sharded, so that no process has them.
    """
    if policy.sharding.active:
        raise InputError(
            f"reference: the initial weights of {policy.source!r} are random or those of a live model, which cannot be "
            "read a second time, and sharded ones cannot be copied. Save them in a directory, and give that as "
            "policy.model."
        )
    return copy.deepcopy(policy)


class NoReference(Reference):
    """None: no second model is held."""

    available = False
    second_model = False

    def load(self, policy: Policy) -> None:
        """Nothing to read."""

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """There are none.

        Raises:
            InputError: always.
        """
        raise InputError("A KL term needs a reference: set model.reference, for instance to FrozenReference.")

    def __repr__(self) -> str:
        return "NoReference()"


class FrozenReference(Reference):
    """A second model of full size, by default the policy as it was before training.

    Args:
        model: a local directory or hub id with the policy's tokenizer; null for the policy's own initial weights.
        dtype: of its weights; null for the policy's.
        device: where it is, for instance `cuda:1`; null for the policy's device.
    """

    second_model = True

    def __init__(self, model: str | None = None, dtype: str | None = None, device: str | None = None) -> None:
        self.model = model
        self.dtype = dtype
        self.device = device
        self.frozen: list[Policy] = []  # a list: a module would be registered by whoever holds this object

    def load(self, policy: Policy) -> None:
        """See `Reference`.

        Raises:
            InputError: the reference's tokenizer is not the policy's.
        """
        if self.frozen:
            return
        with torch.device(self.device) if self.device else nullcontext():
            frozen = self.build(policy)
        if frozen.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise InputError(
                f"reference.model {self.model!r} has another vocabulary than the policy {policy.source!r}."
            )
        self.frozen.append(frozen.requires_grad_(False).eval())
        frozen.sharding.freeze(frozen.network)

    def build(self, policy: Policy) -> Policy:
        """The frozen model. An adapter that has not learned anything is left out."""
        if self.model is None and not policy.readable:
            return copy_of(policy)
        own = {"model": self.model, "dtype": self.dtype}
        frozen = policy.sibling(adapter=None, **{k: v for k, v in own.items() if v is not None})
        return frozen.load(self.layout(policy))

    def layout(self, policy: Policy) -> Sharding:
        """How its weights lie: as the policy's, unless it has a device of its own."""
        return policy.sharding if self.device is None else NoSharding()

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """See `Reference`."""
        frozen, here = self.frozen[0], rollouts.completion_ids.device
        there = torch.device(self.device) if self.device else here
        if frozen.device != there:
            frozen.to(there)  # nothing else moves it
        with torch.no_grad():
            return frozen.score(rollouts.to(there)).logprobs.to(here)

    def __repr__(self) -> str:
        return f"FrozenReference(model={self.model!r}, dtype={self.dtype!r})"
