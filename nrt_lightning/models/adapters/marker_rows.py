"""Training of the marker's rows of frozen embeddings without a copy of the matrix.

Importing this module imports peft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from typing_extensions import override

from nrt_lightning.functional.linear_logprobs import OwnRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MarkerRows(TrainableTokensLayer):
    """Computes what peft's layer computes, without its copy of the whole matrix in every forward pass.

    With 128k tokens and 4,096 dimensions that copy takes 1 GiB for each decoded token, and its gradient another GiB.
    """

    def trained_row(self) -> OwnRow | None:
        """The trained row; None if the adapter is disabled or merged."""
        if self.disable_adapters or self.merged or not self.active_adapters:
            return None
        [name] = self.active_adapters
        [token] = self.token_indices[name]
        return OwnRow(token, self.trainable_tokens_delta[name][0])

    @override
    def forward_adapters(self, x: Tensor, active_adapters: Any, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.base_layer
        out, row = base(x, *args, **kwargs), self.trained_row()
        if row is None:
            return out
        if isinstance(base, nn.Embedding):
            scale = self._get_embed_scale()  # some models scale embeddings
            value = row.value if scale is None else row.value * scale.to(row.value.dtype)  # [H]
            return torch.where((x == row.index).unsqueeze(-1), value.to(out.dtype), out)  # [..., H]
        bias = None if base.bias is None else base.bias[row.index : row.index + 1]
        logit = F.linear(x, row.value.unsqueeze(0).to(x.dtype), bias)  # [..., 1]
        out[..., row.index] = logit.squeeze(-1).to(out.dtype)  # [..., V] in place: `out` is new
        return out


def train_rows_alone(model: nn.Module) -> None:
    """Replace peft's layers by `MarkerRows`."""
    for module in model.modules():
        if type(module) is TrainableTokensLayer:
            module.__class__ = MarkerRows  # same state, another forward


def embedding_names(model: PreTrainedModel) -> list[str]:
    """Full names of the input embedding and, unless it is tied, the output head."""
    wanted = [model.get_input_embeddings(), model.get_output_embeddings()]
    if wanted[0].weight is wanted[1].weight:
        wanted = wanted[:1]  # peft ties the head's rows by itself
    return [name for name, module in model.named_modules() if any(module is w for w in wanted)]
