"""Policies of which every tensor has a size, a dtype and a device, but no values (`FakeTensor`)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nrt_lightning.models.scoring import base as scoring
from nrt_lightning.structures import Markup

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nrt_lightning.models.policy.policy import Policy

MARKER = Markup("marker", (0,), marker_token=True)
BY_LAYER = ("layer_types", "layers_block_type", "block_types", "mlp_layer_types", "no_rope_layers", "mlp_only_layers",
            "attention_layers", "moe_layers")  # fmt: skip
# Settings of models that change what the output head computes.
CHANGES = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier", "logits_soft_cap")


def fake_policy(policy: Policy, layers: int, dtype: torch.dtype | None) -> Policy:
    """A policy of full size with some of its layers, without values. Tensors of ids and masks may have values.

    Args:
        policy: gives the configuration, adapter and scoring forward; needs no weights.
        layers: number of layers.
        dtype: of all weights; None for the policy's.
    """
    small = copy.deepcopy(policy)
    small.config = with_layers(small.config, layers)
    small.markup, small.marker_is_new = MARKER, False
    small.weights, small.quantization, small.grows_vocabulary = "random", None, False
    with torch.device("meta"):
        small.load()
    if dtype is not None:
        small.to(dtype)
    without_values(small)
    head = small.network.get_output_embeddings()
    text = small.config.get_text_config()
    final = all(getattr(text, name, None) in (None, 1, 1.0) for name in CHANGES)
    scoring.FINAL[small.network] = final and type(scoring.head_layer(head)) is nn.Linear
    return small


def without_values(module: nn.Module) -> None:
    """Replace the tensors of a module by tensors on the CPU without values, and keep those shared that are."""
    new: dict[int, tuple[Tensor, Tensor]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in module.modules():
            for held in (part._parameters, part._buffers):
                for name, old in held.items():
                    if old is None:
                        continue
                    if id(old) not in new:
                        empty = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                        trained = isinstance(old, nn.Parameter)
                        new[id(old)] = (old, nn.Parameter(empty, requires_grad=old.requires_grad) if trained else empty)
                    held[name] = new[id(old)][1]  # type: ignore[assignment]


def with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """Reduce a configuration to its first layers, in place."""
    text: Any = config.get_text_config()
    before = text.num_hidden_layers
    changes: dict[str, Any] = {"num_hidden_layers": layers}
    for name in BY_LAYER:
        value = getattr(text, name, None)
        if isinstance(value, list) and len(value) == before:
            changes[name] = value[:layers]
    for name, value in changes.items():
        own = getattr(text, "attribute_map", {}).get(name, name)
        if not isinstance(getattr(type(text), own, None), property):  # these follow from others
            setattr(text, name, value)
    return config


def period(config: PretrainedConfig) -> int:
    """The number of layers after which their types repeat."""
    text: Any = config.get_text_config()
    types = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or [""]
    return next(n for n in range(1, len(types) + 1) if all(types[i] == types[i - n] for i in range(n, len(types))))
