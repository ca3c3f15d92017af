"""Models that keep a state in place of keys and values, in all layers or some: padding may enter it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)


def cache_argument(model: PreTrainedModel) -> str | None:
    """The name under which the model's forward takes a `DynamicCache`; None if it takes none."""
    parameters = inspect.signature(getattr(model, "_fsdp_wrapped_module", model).forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in parameters), None)


def recurrent(model: PreTrainedModel) -> bool:
    """True if the model keeps more than keys and values: linear attention, convolutions, state spaces, recurrences."""
    plain = all(type(layer) in PLAIN for layer in DynamicCache(config=model.config).layers)
    return not plain or cache_argument(model) != "past_key_values"


def padded_right(mask: Tensor) -> Tensor:
    """The order of columns that moves all padding of a mask [N, S] to the right. [N, S]

    >>> import torch
    >>> padded_right(torch.tensor([[False, True, True, False]])).tolist()
    [[1, 2, 0, 3]]
    """
    return (~mask).long().argsort(dim=1, stable=True)
