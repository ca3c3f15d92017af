"""A reference in four bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nrt_lightning.errors import InputError
from nrt_lightning.models.adapters.four_bit import FourBit
from nrt_lightning.models.adapters.quantization import Quantization
from nrt_lightning.models.references.base import FrozenReference, copy_of

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class QuantizedReference(FrozenReference):
    """A second model in about a quarter of the policy's memory, by default the policy as it was before training.

    For policies of every kind; where those are sharded, it is whole in every process. It differs from the full
    reference by the quantization's error: docs/adapters.md has figures.

    Args:
        model: a local directory or hub id with the policy's tokenizer; null for the policy's own initial weights.
        quantization: how it is stored.
        device: where it is, for instance `cuda:1`; null for the policy's device.

    Raises:
        InputError: bitsandbytes is not installed.
    """

    def __init__(
        self,
        model: str | None = None,
        quantization: Quantization = FourBit(),  # noqa: B008  (frozen settings)
        device: str | None = None,
    ) -> None:
        super().__init__(model, device=device)
        self.quantization = quantization
        quantization.check()

    def build(self, policy: Policy) -> Policy:
        """See `FrozenReference`."""
        if self.model is not None or policy.readable:
            own = {"model": self.model} if self.model is not None else {}
            return policy.sibling(adapter=None, quantization=self.quantization, **own).load()
        if policy.adapter is not None:
            raise InputError(
                "reference QuantizedReference cannot read the policy's weights a second time, for they are random or "
                "live, and its adapter is in them. Set reference to AdapterDisabledReference."
            )
        frozen = copy_of(policy)
        self.quantization.quantize(frozen.network)
        return frozen

    def __repr__(self) -> str:
        return f"QuantizedReference(model={self.model!r}, quantization={self.quantization!r})"
