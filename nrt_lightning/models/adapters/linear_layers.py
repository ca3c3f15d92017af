"""The layers that are adapted and quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of the linear layers but the output head, those of GPT-2's own kind too."""
    head, kinds = model.get_output_embeddings(), nn.Linear | Conv1D
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head]
