"""Where a policy is read from: an embedded base, a directory, or a hub id."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM

from nrt_lightning.errors import InputError, nearest
from nrt_lightning.functional.randomness import drawn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from nrt_lightning.models.policy import Policy

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


def read_weights(policy: Policy, as_stored: bool = False) -> PreTrainedModel:
    """A policy's weights, with neither marker nor adapter yet.

    Args:
        policy: says which, and how.
        as_stored: in the dtype of the files and not the policy's. They are then mapped into memory, so that processes
            which each keep a share have one copy between them. Random weights are the same in all processes.
    """
    kwargs: dict[str, Any] = {"dtype": policy.dtype} | policy.remote_code
    if policy.attn_implementation:
        kwargs["attn_implementation"] = policy.attn_implementation
    if policy.weights == "random":
        again = as_stored or policy.adapter is not None  # in other processes; later, for checkpoints do not hold them
        with drawn("weights") if again else nullcontext():
            model = AutoModelForCausalLM.from_config(policy.config, **kwargs)
        return policy.quantization.quantize(model) if policy.quantization else model
    if policy.quantization:
        kwargs["quantization_config"] = policy.quantization.config(policy.dtype)
    kwargs["dtype"] = "auto" if as_stored else policy.dtype
    return AutoModelForCausalLM.from_pretrained(policy.source, **kwargs | policy.hub_kwargs)
