"""Loading of configuration, tokenizer and weights from an embedded base, a directory or a hub id."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.models.adapters.linear_layers import left_out, linear_weights
from nrt_lightning.randomness import forked_rng

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nrt_lightning.models.adapters.quantization import Quantization

log = logging.getLogger(__name__)

EMBEDDED = "embedded:"
FILES_ONLY = ("revision", "dtype", "weights", "attn_implementation", "trust_remote_code", "quantization")


def resolve(model: str | os.PathLike) -> str:
    """The directory of an embedded base, or `model` unchanged; a path that looks local must be a directory."""
    name = os.fspath(model)
    if name.startswith(EMBEDDED):
        assets = Path(str(resources.files("nrt_lightning"))) / "assets"
        name = name.removeprefix(EMBEDDED)
        if not (assets / name / "config.json").is_file():
            known = [path.parent.name for path in assets.glob("*/config.json")]
            raise InputError(f"policy.model {model!r}: no such embedded base.{nearest(name, known)}")
        return str(assets / name)
    if not name.strip():
        raise InputError(f"policy.model {name!r} is empty. Give a local directory, a hub id, or {EMBEDDED}NAME.")
    path = Path(name).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # too long, a loop of links, or characters that no path can have
        raise InputError(f"policy.model {name[:100]!r} is no path ({error.__class__.__name__}). Correct it.") from None
    local = not isinstance(model, str) or name.startswith((".", "/", "~")) or name.count("/") > 1 or there
    if local and not path.is_dir():
        if path.is_file():
            raise InputError(f"policy.model '{name}' is a file. Give its directory.")
        raise InputError(f"policy.model '{name}': no such directory.")
    if not local and "/" in name and path.parent.is_dir():
        beside = [f"{path.parent}/{other.name}" for other in path.parent.iterdir() if other.is_dir()]
        raise InputError(
            f"policy.model '{name}': no such directory.{nearest(name, beside)} (A model of the hub is read where there "
            f"is no directory '{path.parent}'.)"
        )
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise InputError(
            f"policy.model '{name}' holds an adapter without its base. Give the base it was trained from, or an "
            "export in the form Merged."
        )
    return str(path) if local else name


def read(auto: Any, what: str, source: str, **kwargs: Any) -> Any:
    """A configuration or tokenizer, read by a class of transformers; `what` is its name in the error."""
    try:
        return auto.from_pretrained(source, **kwargs)
    except Exception as error:  # damaged files raise many kinds
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        why = " ".join(str(error).split()).partition(". ")[0]
        if "trust_remote_code" in str(error):
            why += "; set trust_remote_code to true if you trust it"
        where = "" if Path(source).is_dir() else "no such directory here, and "
        raise InputError(
            f"policy.model {source!r}: {where}its {what} cannot be read. Give a local directory with config.json and "
            f"tokenizer.json, a hub id, or {EMBEDDED}NAME. ({kind}{why})"
        ) from error


def check_live(model: Any, tokenizer: PreTrainedTokenizerBase | None, settings: dict, defaults: dict) -> None:
    """Check that a live model is a whole language model with its tokenizer.

    Raises:
        InputError: it has an adapter, no output head or no values, no tokenizer, or settings that only files can have.
    """
    name = f"policy.model is a {type(model).__name__}"
    if isinstance(model, torch.nn.Module) and any(hasattr(module, "base_layer") for module in model.modules()):
        raise InputError(
            f"{name} with an adapter. Give the base, for instance model.merge_and_unload(), and a new adapter: "
            "Policy(model, tokenizer=tokenizer, adapter=LoRA())."
        )
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"{name}. Give a directory, a hub id or a PreTrainedModel.")
    if tokenizer is None:
        raise InputError(f"{name} without a tokenizer. Give it: Policy(model, tokenizer=tokenizer).")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        fix = f"Give AutoTokenizer.from_pretrained({tokenizer!r})." if isinstance(tokenizer, str) else "Give one."
        raise InputError(f"policy.tokenizer is a {type(tokenizer).__name__}, which is no tokenizer. {fix}")
    if not model.can_generate() and model.get_output_embeddings() is None:
        raise InputError(f"{name} without an output head for tokens. Give a model of AutoModelForCausalLM.")
    if any(weight.is_meta for weight in model.parameters()):
        raise InputError(f"{name} whose weights are on the meta device and have no values. Load them, or give a path.")
    given = [f"policy.{key}={settings[key]!r}" for key in FILES_ONLY if settings[key] != defaults[key]]
    if given:
        raise InputError(f"{name}, to which {', '.join(given)} cannot apply. Remove the setting or give a path.")


def set_pad_token(tokenizer: PreTrainedTokenizerBase, pad_token: str | None) -> None:
    """Pad with an existing token; None keeps the tokenizer's."""
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise InputError(
                f"policy.pad_token {pad_token!r} is not a token.{nearest(pad_token, tokenizer.all_special_tokens)}"
            )
        tokenizer.pad_token = pad_token


def shape_of(config: PretrainedConfig) -> dict[str, Any]:
    """Architecture and size of a language model."""
    text = config.get_text_config()
    names = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")
    return {name: getattr(text, name, None) for name in names}


def skeleton(config: PretrainedConfig, **kwargs: Any) -> PreTrainedModel:
    """A model without values, on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **kwargs)


def random_weights(
    config: PretrainedConfig, dtype: torch.dtype, quantization: Quantization | None, *, repeatable: bool, **kwargs: Any
) -> PreTrainedModel:
    """A model initialized from its configuration, without marker and adapter.

    Args:
        config: of the model.
        dtype: of the weights.
        quantization: how they are stored; None for `dtype`.
        repeatable: sample them from the run's seed, so that they are equal in all processes and after a resume.
        kwargs: of transformers.
    """
    with forked_rng("weights") if repeatable else nullcontext():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **kwargs)
    return said(quantization.quantize(model)) if quantization else model


def said(model: PreTrainedModel) -> PreTrainedModel:
    """A quantized model; a warning says what of it stays unquantized, if anything does."""
    if found := left_out(model, linear_weights(model)):
        log.warning("policy.quantization stores in fewer bits %s.", found)
    return model


def stored_weights(
    source: str, dtype: torch.dtype, quantization: Quantization | None, *, as_stored: bool, **kwargs: Any
) -> PreTrainedModel:
    """A model read from a directory or hub id, without marker and adapter.

    Args:
        source: the directory or hub id.
        dtype: of the weights as loaded.
        quantization: how they are stored in memory; None for `dtype`.
        as_stored: load them in the dtype of their files. The files are then mapped into memory, one copy for all
            processes of a machine.
        kwargs: of transformers.

    Raises:
        InputError: the files are missing or damaged, or those of another configuration.
    """
    if quantization:
        kwargs["quantization_config"] = quantization.config(dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype="auto" if as_stored else dtype, **kwargs)
        return said(model) if quantization else model
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"policy.model {source!r}: its weights cannot be read. Copy or download the model again. "
            f"({' '.join(str(error).split())})"
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise InputError(
            f"policy.model {source!r}: its weights have other shapes than its config.json says. Copy or download the "
            "model again."
        ) from error


def check_model(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `InputError` unless a model is causal and its tokenizer is its own."""
    check_causal(config, name)
    check_vocabulary(tokenizer, config, name)


def check_causal(config: PretrainedConfig, name: str) -> None:
    """Check that a model predicts the next token from those before it.

    Raises:
        InputError: it is an encoder, or has one.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{name} is an encoder-decoder. NRT needs a causal language model.")
    kind = config.get_text_config().model_type
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise InputError(
            f"{name} ({kind}) is an encoder, whose tokens see those after them. NRT needs a causal language model."
        )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> None:
    """Check that a model has an embedding for every token, apart from tokens that were added to its tokenizer.

    Raises:
        InputError: the tokenizer belongs to another model.
    """
    size, added = getattr(config.get_text_config(), "vocab_size", None), tokenizer.added_tokens_decoder
    largest = max((index for index in tokenizer.get_vocab().values() if index not in added), default=0)
    if size is not None and largest >= size:
        raise InputError(
            f"{name} has {size} embeddings, but its tokenizer writes ids up to {largest}. Give the tokenizer of this "
            "model."
        )
