"""Weights and models in directories that appear whole or not at all."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from nrt_lightning.models.policy.plain_weights import plain_weights, whole
from nrt_lightning.models.sharding.base import plain_name

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

FILE_BYTES = 4 * 2**30  # about the size of a file of weights


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A directory to fill, which is then found under its name, in the place of one that was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        yield beside
        beside.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_weights(weights: Iterable[tuple[str, Tensor]], directory: Path | None) -> None:
    """Write weights as safetensors files, with an index where there are several.

    Args:
        weights: all of which are taken, whether they are written or not: taking them may need every process.
        directory: an empty one; None on processes that write nothing.
    """
    held: dict[str, Tensor] = {}
    places: dict[str, str] = {}  # of every weight, its file
    for name, weight in weights:
        if directory is None:
            continue
        if held and sum(other.nbytes for other in held.values()) + weight.nbytes > FILE_BYTES:
            write_file(held, places, directory)
        held[name] = weight.cpu().clone(memory_format=torch.contiguous_format)  # tied weights share memory
    if directory is None:
        return
    write_file(held, places, directory)
    files = set(places.values())
    if len(files) == 1:
        (directory / files.pop()).rename(directory / "model.safetensors")
    else:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_file(held: dict[str, Tensor], places: dict[str, str], directory: Path) -> None:
    """Write the weights held, note where, and hold none of them any longer."""
    file = f"model-{len(set(places.values())) + 1:05}.safetensors"
    save_file(held, directory / file, metadata={"format": "pt"})
    places.update(dict.fromkeys(held, file))
    held.clear()


def write_adapter(policy: Policy, directory: Path | None) -> None:
    """Write the adapter alone, in peft's files; on processes without a directory only take part."""
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


def write_model(policy: Policy, target: Path) -> Path:
    """Write all that a server needs: plain weights, configuration and tokenizer with the marker.

    Where there is no GPU, a tied output head is served as one of its own: vLLM then packs the head's weights, and packs
    them anew for new weights only if they come under their own name.
    """
    network = policy.network
    plain = {key: value for key, value in network.config.to_dict().items() if key != "quantization_config"}
    plain["tie_word_embeddings"] = network.config.tie_word_embeddings and torch.cuda.is_available()
    with appearing(target) as directory:
        write_weights(plain_weights(policy), directory)
        type(network.config).from_dict(plain).save_pretrained(directory)
        if network.generation_config is not None:
            network.generation_config.save_pretrained(directory)
        policy.tokenizer.save_pretrained(directory)
    return target
