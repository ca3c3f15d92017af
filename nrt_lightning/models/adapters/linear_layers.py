"""Selection of the layers that are adapted and quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of all linear layers except the output head, GPT-2's `Conv1D` included."""
    head, kinds = model.get_output_embeddings(), nn.Linear | Conv1D
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head]
