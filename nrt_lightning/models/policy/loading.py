"""Where a policy is read from: an embedded base, a directory, or a hub id."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.randomness import forked_rng

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from nrt_lightning.models.adapters.quantization import Quantization

EMBEDDED = "embedded:"


def resolve(model: str) -> str:
    """The directory of an embedded base, or `model` as it is; a path that looks local must exist."""
    if model.startswith(EMBEDDED):
        assets = Path(str(resources.files("nrt_lightning"))) / "assets"
        name = model.removeprefix(EMBEDDED)
        if not (assets / name / "config.json").is_file():
            known = [path.parent.name for path in assets.glob("*/config.json")]
            raise InputError(f"policy.model {model!r}: no such embedded base.{nearest(name, known)}")
        return str(assets / name)
    local = model.startswith((".", "/", "~")) or model.count("/") > 1
    path = Path(model).expanduser()
    if local and not path.is_dir():
        raise InputError(f"policy.model {model!r}: no such directory.")
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise InputError(
            f"policy.model {model!r} holds an adapter without its base. Give the base it was trained from, or an "
            "export in the form Merged."
        )
    return str(path) if path.is_dir() else model


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: str, pad_token: str | None) -> None:
    """Refuse a tokenizer that cannot end an answer or pad a batch."""
    if tokenizer.eos_token_id is None:
        raise InputError(f"The tokenizer of {model!r} has no eos_token: an answer could not end. Set it in its files.")
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise InputError(
                f"policy.pad_token {pad_token!r} is not a token.{nearest(pad_token, tokenizer.all_special_tokens)}"
            )
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {model!r} has no pad_token. Set policy.pad_token to an existing token; "
            f"its end token {tokenizer.eos_token!r} will do, for padding is masked."
        )


def shape_of(config: PretrainedConfig) -> dict[str, Any]:
    """Architecture and size of a language model."""
    text = config.get_text_config()
    names = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")
    return {name: getattr(text, name, None) for name in names}


def random_weights(
    config: PretrainedConfig, dtype: torch.dtype, quantization: Quantization | None, *, repeatable: bool, **kwargs: Any
) -> PreTrainedModel:
    """A model initialized from its configuration alone, with neither marker nor adapter yet.

    Args:
        config: of the model.
        dtype: of the weights.
        quantization: how they are stored; None for `dtype`.
        repeatable: draw them from the run's seed, so that they are the same in all processes and after a resume.
        kwargs: of transformers.
    """
    with forked_rng("weights") if repeatable else nullcontext():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **kwargs)
    return quantization.quantize(model) if quantization else model


def stored_weights(
    source: str, dtype: torch.dtype, quantization: Quantization | None, *, as_stored: bool, **kwargs: Any
) -> PreTrainedModel:
    """The weights of a directory or hub id, with neither marker nor adapter yet.

    Args:
        source: where they are.
        dtype: in which they are loaded.
        quantization: how they are stored in memory; None for `dtype`.
        as_stored: load them in the dtype of their files. They are then mapped into memory, so that processes which
            each keep a share have one copy between them.
        kwargs: of transformers.
    """
    if quantization:
        kwargs["quantization_config"] = quantization.config(dtype)
    return AutoModelForCausalLM.from_pretrained(source, dtype="auto" if as_stored else dtype, **kwargs)
