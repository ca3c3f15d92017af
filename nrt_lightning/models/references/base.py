"""References: frozen models with which the policy is compared.

A reference is never a submodule of the module that uses it, so no optimizer, checkpoint or sharding unit includes it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.sharding.base import NoSharding, Sharding

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.structures import Rollouts


class Reference(ABC):
    """A frozen model."""

    available: bool = True  # False: there is no model
    second_model: bool | None = None  # it holds weights besides the policy's; None: unknown to `nrt-lightning plan`

    def check(self, policy: Policy) -> None:  # noqa: B027  (optional)
        """Raise `InputError` if this cannot be the policy's reference; called before weights are read."""

    @abstractmethod
    def load(self, policy: Policy) -> None:
        """Read the weights; called before a checkpoint is restored into the policy."""

    @abstractmethod
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """Log-probs of the completions' tokens, without gradient. -> [N, C]"""

    def update(self, policy: Policy, step: int) -> None:  # noqa: B027  (optional)
        """Update the weights from the policy's; called after optimizer step number `step`, counted from 1."""

    def state_dict(self) -> dict[str, Any]:
        """The weights to store in a checkpoint; empty if they can be read again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore the weights from a checkpoint."""


def copy_of(policy: Policy) -> Policy:
    """A copy of a policy whose initial weights cannot be read again.

    Raises:
        InputError: the weights are sharded, so that no process has all of them.
    """
    if policy.sharding.active:
        raise InputError(
            f"reference: the initial weights of {policy.source!r} are random or a live model's and cannot be read "
            "again, and sharded weights cannot be copied. Save the model and set policy.model to its directory."
        )
    return copy.deepcopy(policy)


class NoReference(Reference):
    """No reference."""

    available = False
    second_model = False

    @override
    def load(self, policy: Policy) -> None:
        pass

    @override
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        raise InputError("A KL term needs a reference: set model.reference, for instance to FrozenReference.")

    def __repr__(self) -> str:
        return "NoReference()"


class FrozenReference(Reference):
    """A second model, by default the policy before training.

    Args:
        model: a local directory or hub id with the policy's tokenizer; null for the policy's initial weights.
        dtype: of its weights; null for the policy's.
        device: for instance `cuda:1`; null for the policy's device.
    """

    second_model = True

    def __init__(self, model: str | None = None, dtype: str | None = None, device: str | None = None) -> None:
        self.model = model
        self.dtype = dtype
        self.device = device
        self.frozen: list[Policy] = []  # a list, so that modules which hold this object do not register it

    @override
    def load(self, policy: Policy) -> None:
        if self.frozen:
            return
        with torch.device(self.device) if self.device else nullcontext():
            frozen = self.build(policy)
        if frozen.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise InputError(
                f"reference.model {self.model!r} has another vocabulary than policy.model {policy.source!r}. Set it to "
                "a model with the policy's tokenizer, or to null."
            )
        self.frozen.append(frozen.requires_grad_(False).eval())
        frozen.sharding.freeze(frozen.network)

    def build(self, policy: Policy) -> Policy:
        """The frozen model, without the policy's untrained adapter."""
        if self.model is None and not policy.readable:
            return copy_of(policy)
        given = {"model": self.model, "dtype": self.dtype}
        frozen = policy.sibling(adapter=None, **{k: v for k, v in given.items() if v is not None})
        return frozen.load(self.layout(policy))

    def layout(self, policy: Policy) -> Sharding:
        """The layout of its weights: the policy's, or whole weights if `device` is set."""
        return policy.sharding if self.device is None else NoSharding()

    @override
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        frozen, here = self.frozen[0], rollouts.completion_ids.device
        there = torch.device(self.device) if self.device else here
        if frozen.device != there:
            frozen.to(there)  # no trainer moves it
        with torch.no_grad():
            return frozen.score(rollouts.to(there)).logprobs.to(here)

    def __repr__(self) -> str:
        return f"FrozenReference(model={self.model!r}, dtype={self.dtype!r})"
