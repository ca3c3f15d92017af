"""A reference in 4 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.adapters.four_bit import FourBit
from nrt_lightning.models.adapters.quantization import Quantization
from nrt_lightning.models.references.base import FrozenReference, copy_of

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class QuantizedReference(FrozenReference):
    """A second model in about a quarter of the policy's memory, by default the policy before training.

    It is whole in every process even if the policy is sharded. It differs from `FrozenReference` by the quantization
    error (measured in docs/adapters.md).

    Args:
        model: a local directory or hub id with the policy's tokenizer; null for the policy's initial weights.
        quantization: how it is stored.
        device: for instance `cuda:1`; null for the policy's device.

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

    @override
    def build(self, policy: Policy) -> Policy:
        if self.model is not None or policy.readable:
            given = {"model": self.model} if self.model is not None else {}
            return policy.sibling(adapter=None, quantization=self.quantization, **given).load()
        if policy.adapter is not None:
            raise InputError(
                "reference is QuantizedReference, but the policy's initial weights are random or a live model's and "
                "cannot be read again, and a copy would include the adapter. Set it to AdapterDisabledReference."
            )
        frozen = copy_of(policy)
        self.quantization.quantize(frozen.network)
        return frozen

    def __repr__(self) -> str:
        return f"QuantizedReference(model={self.model!r}, quantization={self.quantization!r})"
