"""Weights, adapters and models as files that a server reads."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from nrt_lightning.export.directories import atomic_directory
from nrt_lightning.models.policy.plain_weights import plain_config, plain_weights, whole
from nrt_lightning.models.sharding.base import plain_name

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

FILE_BYTES = 4 * 2**30  # approximate size of a weights file


def write_weights(policy: Policy, directory: Path | None) -> None:
    """Write all weights as safetensors files: adapters merged, quantized weights dequantized.

    Under autocast they have its type, in which the policy computes: half the bytes of float32.

    Args:
        policy: loaded; under sharding, called on all processes inside `policy.sharding.readable`.
        directory: an empty directory; None on processes that write nothing.
    """
    pending: dict[str, Tensor] = {}
    files: dict[str, str] = {}  # the file of every weight
    kind = policy.network.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    for name, weight in plain_weights(policy, dtype):
        if directory is None:
            continue
        if pending and sum(other.nbytes for other in pending.values()) + weight.nbytes > FILE_BYTES:
            write_file(pending, files, directory)
        weight = weight.cpu().contiguous()
        shared = any(
            other.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr() for other in pending.values()
        )
        pending[name] = weight.clone() if shared else weight  # tied weights share memory, which safetensors refuses
    if directory is None:
        return
    write_file(pending, files, directory)
    names = set(files.values())
    if len(names) == 1:
        (directory / names.pop()).rename(directory / "model.safetensors")
    else:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def write_file(pending: dict[str, Tensor], files: dict[str, str], directory: Path) -> None:
    """Write the pending weights to one file, add it to `files`, and clear `pending`."""
    file = f"model-{len(set(files.values())) + 1:05}.safetensors"
    save_file(pending, directory / file, metadata={"format": "pt"})
    files.update(dict.fromkeys(pending, file))
    pending.clear()


def write_adapter(policy: Policy, directory: Path | None) -> None:
    """Write the adapter alone, in the files of peft.

    Args:
        policy: loaded, with an adapter; under sharding, called on all processes inside `policy.sharding.readable`.
        directory: an empty directory; None on processes that write nothing.
    """
    from peft import get_peft_model_state_dict

    trained = {plain_name(name): whole(p).cpu() for name, p in policy.model.named_parameters() if p.requires_grad}
    if directory is not None:
        state = get_peft_model_state_dict(policy.model, state_dict=trained, save_embedding_layers=False)
        save_file(
            {name: weight.contiguous() for name, weight in state.items()}, directory / "adapter_model.safetensors"
        )
        config = copy.copy(policy.model.peft_config["default"])
        config.inference_mode, config.base_model_name_or_path = True, policy.source
        config.save_pretrained(directory)


def write_model(policy: Policy, target: Path, *, tied: bool = True) -> Path:
    """Write everything a server needs: plain weights, configuration, and the tokenizer with the marker.

    Args:
        policy: loaded.
        target: the directory, replaced if it exists.
        tied: False serves a tied output head as a weight of its own.
    """
    network = policy.network
    config = plain_config(network, tie_word_embeddings=network.config.tie_word_embeddings and tied)
    with atomic_directory(target) as directory:
        write_weights(policy, directory)
        config.save_pretrained(directory)
        if network.generation_config is not None:
            network.generation_config.save_pretrained(directory)
        policy.tokenizer.save_pretrained(directory)
    return target
