"""Adapters: a few new weights that are trained while the base stays as it is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class Adapter(ABC):
    """Settings of an adapter of peft."""

    @abstractmethod
    def check(self, skeleton: PreTrainedModel) -> None:
        """Refuse a base that the adapter does not fit.

        Args:
            skeleton: the base without weights, on the meta device.
        """

    @abstractmethod
    def apply(self, model: PreTrainedModel, marker_id: int) -> PeftModel:
        """Freeze the model and put the adapter into it, in place."""

    @abstractmethod
    def identity(self) -> str:
        """The settings that decide what the adapter's weights mean; a checkpoint must agree with them."""


def check_plain(model: PreTrainedModel) -> None:
    """Refuse a live model that has an adapter already.

    Raises:
        InputError: with the way to the base.
    """
    if any(hasattr(module, "base_layer") for module in model.modules()):
        raise InputError(
            f"The {type(model).__name__} given to Policy.wrap has an adapter already. Give the base, for instance "
            "model.merge_and_unload(), and a new adapter as wrap(model, tokenizer, adapter=LoRA())."
        )


def warn_of_frozen_marker(adapter: Adapter, source: str) -> None:
    """Say so where an adapter leaves a marker that is new to the base as it is."""
    if not getattr(adapter, "marker_rows", True):
        log.warning(
            "policy.adapter.marker_rows is false and the marker is new to %r: it stays a copy of the end token, and "
            "the policy does not learn to end its traces with it. Set it to true, unless the marker is always forced.",
            source,
        )
