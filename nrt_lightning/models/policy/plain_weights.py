"""A policy's weights as a plain model would have them: adapters merged, 4 bits dequantized, shards gathered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from nrt_lightning.models.sharding.base import plain_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from nrt_lightning.models.policy.policy import Policy


@torch.no_grad()
def plain_weights(policy: Policy, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Names and weights, one after the other, so that no second model is held. The policy stays as it is.

    Tied weights are given under each of their names. Every process must take all of them where the policy is sharded,
    inside `policy.sharding.readable`.

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
        holders = [network.get_submodule(name[:i]) for i, letter in enumerate(name) if letter == "."]
        adapted = next((holder for holder in holders if hasattr(holder, "base_layer")), None)
        plain = plain_name(name).replace("base_layer.", "").replace("token_adapter.", "")
        if adapted is not None and "base_layer." not in name:
            continue
        value, quantized = whole(weight), hasattr(weight, "quant_state")
        if adapted is not None and plain.endswith("weight"):
            value = merge(adapted, value)
        if quantized and getattr(network.get_submodule(name.rpartition(".")[0]), "source_cls", None) is Conv1D:
            value = value.T  # GPT-2's layers are transposed when they are quantized
        yield plain, value.to(dtype or (policy.dtype if quantized else weight.dtype))


def plain_config(network: PreTrainedModel, **changes: Any) -> PretrainedConfig:
    """The configuration of a model with plain weights: without quantization, and with some settings changed."""
    settings = {key: value for key, value in network.config.to_dict().items() if key != "quantization_config"}
    return type(network.config).from_dict(settings | changes)


def whole(weight: Tensor) -> Tensor:
    """A weight that is sharded or in 4 bits, as it would be without."""
    if isinstance(weight, DTensor):
        return weight.full_tensor().detach()
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, state)


def merge(layer: nn.Module, weight: Tensor) -> Tensor:
    """The weight of a layer with what its adapter adds, in float32.

    Args:
        layer: of peft, with an adapter or with rows of its own.
        weight: of its base layer.
    """
    found: Any = layer
    [adapter] = found.active_adapters
    weight = weight.float()
    if hasattr(found, "token_indices"):  # rows in the place of the base's
        weight = weight.clone()
        weight[found.token_indices[adapter]] = whole(found.trainable_tokens_delta[adapter]).float()
        return weight
    down, up = (whole(part[adapter].weight).float() for part in (found.lora_A, found.lora_B))  # [r, in], [out, r]
    update = found.scaling[adapter] * (up @ down)
    turned = getattr(found, "fan_in_fan_out", False)  # GPT-2 keeps [in, out]
    weight = weight + (update.T if turned else update)
    if adapter not in found.lora_magnitude_vector:
        return weight
    magnitude = whole(found.lora_magnitude_vector[adapter].weight).float()  # DoRA's, [out]
    scale = magnitude / weight.norm(dim=0 if turned else 1)
    return weight * (scale if turned else scale.unsqueeze(1))
