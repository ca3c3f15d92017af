"""Low-rank updates that are added in the product which computes them.

Importing this module imports peft.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from typing_extensions import override

from nrt_lightning.functional.precision import compute_dtype
from nrt_lightning.models.adapters.linear_layers import low_rank_update


class LowRank(Linear):
    """Computes what peft's layer computes, with the scale at the inner dimension and the sum in the last product.

    peft scales and adds the outputs, and under autocast converts the inputs to the factors' float32 and back, which is
    kept for the backward pass. In 16 bits that takes about as long as the products.
    """

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found = low_rank_update(self)
        if found is None or args or kwargs or compute_dtype(x) != compute_dtype(found.a):
            return super().forward(x, *args, **kwargs)
        out = self.base_layer(x)
        inner = F.linear(self.lora_dropout[found.name](x), found.a) * found.scale  # [..., r]
        total = torch.addmm(out.flatten(0, -2), inner.flatten(0, -2), found.b.T)  # [tokens, out]
        return total.view(out.shape)


def fuse_updates(model: nn.Module) -> None:
    """Replace peft's layers by `LowRank`."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = LowRank  # same state, another forward
