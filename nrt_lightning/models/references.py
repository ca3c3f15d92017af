"""References: frozen models that the policy is held against.

A reference is never a submodule of the module that uses it, so it is in no optimizer, checkpoint or sharding unit.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.structures import Rollouts


class Reference(ABC):
    """A frozen model."""

    available: bool = True

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


class NoReference(Reference):
    """None: no second model is held."""

    available = False

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
    """

    def __init__(self, model: str | None = None, dtype: str | None = None) -> None:
        self.model = model
        self.dtype = dtype
        self.frozen: list[Policy] = []  # a list: a module would be registered by whoever holds this object

    def load(self, policy: Policy) -> None:
        """See `Reference`.

        Raises:
            InputError: the reference's tokenizer is not the policy's.
        """
        if self.frozen:
            return
        if self.model is None and not policy.readable:
            frozen = copy.deepcopy(policy)
        else:
            own = {"model": self.model, "dtype": self.dtype}
            frozen = Policy(**policy.settings | {k: v for k, v in own.items() if v is not None}).load()
        if frozen.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise InputError(
                f"reference.model {self.model!r} has another vocabulary than the policy {policy.source!r}."
            )
        self.frozen.append(frozen.requires_grad_(False).eval())

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """See `Reference`."""
        frozen = self.frozen[0]
        if frozen.device != rollouts.completion_ids.device:
            frozen.to(rollouts.completion_ids.device)  # nothing else moves it
        with torch.no_grad():
            return frozen.score(rollouts).logprobs

    def __repr__(self) -> str:
        return f"FrozenReference(model={self.model!r}, dtype={self.dtype!r})"
