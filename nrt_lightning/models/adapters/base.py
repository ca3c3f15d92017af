"""Adapters: a few new weights that are trained while the base stays frozen."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class Adapter(ABC):
    """Settings of a peft adapter."""

    marker_rows: bool = False  # True: the marker's embedding rows are trained too
    dtype: str | None = None  # of the trained weights; None: the base's

    @abstractmethod
    def check(self, skeleton: PreTrainedModel) -> None:
        """Check that the adapter fits a base.

        Args:
            skeleton: the base, possibly without values on the meta device.
        """

    @abstractmethod
    def apply(self, model: PreTrainedModel, marker_ids: list[int]) -> PeftModel:
        """Freeze the model and add the adapter to it, in place.

        Args:
            model: the base.
            marker_ids: the marker, if it is a token of its own; otherwise nothing.
        """

    @abstractmethod
    def identity(self) -> str:
        """The settings that determine what the adapter's weights mean; a checkpoint must agree with them."""


def warn_of_frozen_marker(adapter: Adapter, source: str) -> None:
    """Log a warning if a marker that is new to the base will not be trained."""
    if not adapter.marker_rows:
        log.warning(
            "policy.adapter.marker_rows is false and the marker is new to %r: its embedding stays a copy of the end "
            "token's, and the policy cannot learn to end traces. Set it to true unless the marker is always forced.",
            source,
        )
