"""A policy's weights as those of a plain model: adapters merged, 4-bit weights dequantized, shards gathered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from nrt_lightning.models.sharding.base import plain_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from nrt_lightning.models.policy.policy import Policy


@torch.no_grad()
def plain_weights(policy: Policy, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield names and weights one at a time, so that no second model is held. The policy is not changed.

    Tied weights are yielded under each of their names. If the policy is sharded, every process must iterate over all
    of them inside `policy.sharding.readable`.

    Args:
        policy: loaded.
        dtype: of the weights; None to keep theirs, and the policy's for quantized ones.

    Example:
        >>> from nrt_lightning import LoRA, Policy
        >>> adapted = Policy("embedded:registers-base", adapter=LoRA(rank=4)).load()
        >>> dict(plain_weights(adapted)).keys() == dict(plain_weights(Policy("embedded:registers-base").load())).keys()
        True
    """
    network = policy.network
    for name, weight in network.named_parameters(remove_duplicate=False):
        dots = [i for i, letter in enumerate(name) if letter == "."]
        around = {name[i + 1 :]: network.get_submodule(name[:i]) for i in dots}  # by the rest of the name
        adapters = {rest: holder for rest, holder in around.items() if hasattr(holder, "base_layer")}
        adapted = adapter_of(list(adapters.values()), name.rpartition(".")[2])
        plain = plain_name(name).replace("base_layer.", "").replace("token_adapter.", "")
        if any("base_layer." not in rest for rest in adapters):
            continue  # a weight of an adapter
        value, quantized = whole(weight), hasattr(weight, "quant_state")
        if adapted is not None:
            value = merge(adapted, value)
        if quantized and getattr(network.get_submodule(name.rpartition(".")[0]), "source_cls", None) is Conv1D:
            value = value.T  # GPT-2's layers are transposed when they are quantized
        yield plain, value.to(dtype or (policy.dtype if quantized else weight.dtype))


def adapter_of(adapters: list[Any], parameter: str) -> Any:
    """The layer that adapts a parameter; None if none does.

    Args:
        adapters: the adapters' layers around the parameter, outer ones first. Experts have one around another for each
            adapted parameter.
        parameter: its name in the innermost module.
    """
    return next((one for one in adapters if getattr(one, "parameter_name", "weight") == parameter), None)


def plain_config(network: PreTrainedModel, **changes: Any) -> PretrainedConfig:
    """The configuration of a model with plain weights: without quantization, and with some settings changed."""
    settings = {key: value for key, value in network.config.to_dict().items() if key != "quantization_config"}
    return type(network.config).from_dict(settings | changes)


def whole(weight: Tensor) -> Tensor:
    """A sharded weight gathered, a 4-bit weight dequantized, any other unchanged."""
    if isinstance(weight, DTensor):
        return weight.full_tensor().detach()
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, state)


def merge(layer: Any, weight: Tensor) -> Tensor:
    """The weight of a layer with its adapter merged, in float32.

    Args:
        layer: of peft, with low-rank updates or trained rows.
        weight: of its base layer.
    """
    [adapter] = layer.active_adapters
    weight = weight.float()
    if hasattr(layer, "token_indices"):  # trained rows replace the base's
        weight = weight.clone()
        weight[layer.token_indices[adapter]] = whole(layer.trainable_tokens_delta[adapter]).float()
        return weight
    if hasattr(layer, "parameter_name"):
        return weight + layer.get_delta_weight(adapter).float()
    down, up = (whole(part[adapter].weight).float() for part in (layer.lora_A, layer.lora_B))  # [r, in], [out, r]
    update = layer.scaling[adapter] * (up @ down)
    transposed = getattr(layer, "fan_in_fan_out", False)  # GPT-2 stores [in, out]
    weight = weight + (update.T if transposed else update)
    if adapter not in layer.lora_magnitude_vector:
        return weight
    magnitude = whole(layer.lora_magnitude_vector[adapter].weight).float()  # [out], of DoRA
    scale = magnitude / weight.norm(dim=0 if transposed else 1)
    return weight * (scale if transposed else scale.unsqueeze(1))
