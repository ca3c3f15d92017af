"""An adapter's updates added to the base's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


@torch.no_grad()
def merged(policy: Policy, dtype: torch.dtype) -> PreTrainedModel:
    """A model of plain weights that computes what the policy computes with its adapter. The policy stays as it is.

    A base in 4 bits is dequantized first and merged then: the sum of both rounded to 4 bits again would be off by a
    fifth. The sum is taken in float32 where base or adapter are.

    Args:
        policy: loaded, with an adapter.
        dtype: of the merged weights.
    """
    assert policy.adapter is not None
    network: Any = policy.network
    config = network.config.__class__.from_dict(without_quantization(network.config.to_dict()))
    plain = type(network)._from_config(config, dtype=torch.float32)
    copy_base(network, plain)
    plain.generation_config = network.generation_config
    adapted = policy.adapter.apply(plain, policy.marker_id)
    trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
    adapted.load_state_dict(trained, strict=False)
    return adapted.merge_and_unload().to(dtype)


def without_quantization(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it would be had nobody quantized the model."""
    return {key: value for key, value in config.items() if key != "quantization_config"}


def copy_base(network: nn.Module, plain: nn.Module) -> None:
    """Copy the base's own weights into a model without adapter and quantization, one at a time."""
    found = base_weights(network)
    for name, target in plain.state_dict().items():
        weight = plain_weight(found[name])
        turned = weight is not found[name] and isinstance(plain.get_submodule(name.rpartition(".")[0]), Conv1D)
        target.copy_(weight.T if turned else weight)  # GPT-2's own layers are turned round to be quantized


def base_weights(network: nn.Module) -> dict[str, Tensor]:
    """The base's own weights under the names that they have without an adapter.

    peft puts a layer that it adapts into another one, as its `base_layer`.
    """
    found = {}
    for name, value in [*network.named_parameters(remove_duplicate=False), *network.named_buffers()]:
        parents = [network.get_submodule(name[:i]) for i, letter in enumerate(name) if letter == "."]
        if "base_layer." in name or not any(hasattr(parent, "base_layer") for parent in parents):
            found[name.replace("base_layer.", "").replace("token_adapter.", "")] = value
    return found


def plain_weight(weight: Tensor) -> Tensor:
    """A weight, dequantized if it is in 4 bits."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, state)
