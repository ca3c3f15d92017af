"""The marker's rows of frozen embeddings, trained without a copy of the matrix around them.

Importing it imports peft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn

from nrt_lightning.functional.linear_logprobs import OwnRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MarkerRows(TrainableTokensLayer):
    """The same function as peft's layer, which writes the trained rows into a copy of the whole matrix at every use.

    At 128k tokens and 4,096 dimensions that copy is 1 GiB for every token decoded, and its gradient another one.
    """

    def own_row(self) -> OwnRow | None:
        """The trained row; None where the adapter is disabled or the row is in the matrix already."""
        if self.disable_adapters or self.merged or not self.active_adapters:
            return None
        [name] = self.active_adapters
        [token] = self.token_indices[name]
        return OwnRow(token, self.trainable_tokens_delta[name][0])

    def forward_adapters(self, x: Tensor, active_adapters: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The base's values, with those of the trained row in their place."""
        base: Any = self.base_layer
        out, own = base(x, *args, **kwargs), self.own_row()
        if own is None:
            return out
        if isinstance(base, nn.Embedding):
            scale = self._get_embed_scale()  # some models scale what they look up
            value = own.value if scale is None else own.value * scale.to(own.value.dtype)  # [H]
            return torch.where((x == own.index).unsqueeze(-1), value.to(out.dtype), out)  # [..., H]
        bias = None if base.bias is None else base.bias[own.index : own.index + 1]
        logit = F.linear(x, own.value.unsqueeze(0).to(x.dtype), bias)  # [..., 1]
        out[..., own.index] = logit.squeeze(-1).to(out.dtype)  # in place: it was made just now, [..., V]
        return out


def train_rows_alone(model: nn.Module) -> None:
    """Put `MarkerRows` in the place of peft's own layers."""
    for module in model.modules():
        if type(module) is TrainableTokensLayer:
            module.__class__ = MarkerRows  # same state, another forward


def embedding_names(model: PreTrainedModel) -> list[str]:
    """Full names of the input embedding and the output head; of the first alone where they are tied."""
    wanted = [model.get_input_embeddings(), model.get_output_embeddings()]
    if wanted[0].weight is wanted[1].weight:
        wanted = wanted[:1]  # peft ties the head's rows by itself
    return [name for name, module in model.named_modules() if any(module is w for w in wanted)]
