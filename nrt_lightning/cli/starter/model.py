"""Facts about a model, from its configuration and tokenizer alone."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from nrt_lightning.data.default_template import default_template
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.loading import check_model, read, resolve, skeleton
from nrt_lightning.models.policy.markup import add_markup, with_turn_end
from nrt_lightning.structures import Markup

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass
class ModelFacts:
    """A model whose weights have not been read."""

    name: str
    config: Any
    tokenizer: Any
    weights: int  # how many

    @classmethod
    def read(cls, name: str) -> ModelFacts:
        """Read configuration and tokenizer of a directory, hub id or embedded base.

        Raises:
            InputError: there is no such model, or it is no causal language model with an end token.
        """
        try:
            source = resolve(name)
            config, tokenizer = read(AutoConfig, "config", source), read(AutoTokenizer, "tokenizer", source)
        except InputError as error:
            raise InputError(f"--model={name!r}: {' '.join(str(error).split())}") from error
        check_model(config, tokenizer, f"--model={name!r}")
        check_weights(source, f"--model={name!r}")
        if tokenizer.eos_token_id is None:
            raise InputError(
                f"--model={name!r}: its tokenizer has no eos_token. Set eos_token in tokenizer_config.json to the "
                "token that ends the model's texts."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weights = sum(parameter.numel() for parameter in skeleton(config).parameters())
        return cls(name, config, tokenizer, weights)

    @property
    def shape(self) -> Any:
        """The configuration of the language model, which may be a part of a larger one."""
        return self.config.get_text_config()

    @property
    def context(self) -> int | None:
        """Longest text in tokens; None if the configuration does not say."""
        return getattr(self.shape, "max_position_embeddings", None)

    @property
    def pad_token(self) -> str | None:
        """The token to pad with where the tokenizer names none."""
        if self.tokenizer.pad_token_id is not None:
            return None
        named = [token for token in self.tokenizer.get_vocab() if "pad" in token.lower() and token.startswith("<")]
        special = [token for token in named if token in self.tokenizer.all_special_tokens or token.endswith("|>")]
        return sorted(special, key=len)[0] if special else self.tokenizer.eos_token

    @property
    def chat(self) -> bool:
        """True if the tokenizer has a chat template."""
        return bool(self.tokenizer.chat_template)

    @cached_property
    def prepared(self) -> tuple[Any, bool, Markup]:
        """The tokenizer as the policy has it, whether the marker is new to it, and the markup of the defaults."""
        tokenizer = copy.deepcopy(self.tokenizer)
        if self.pad_token is not None:
            tokenizer.pad_token = self.pad_token
        is_new, markup = add_markup(tokenizer, None, None, None)
        end = default_template(tokenizer, markup).turn_end(tokenizer)
        return tokenizer, is_new, with_turn_end(markup, tokenizer, end, None)

    @property
    def template(self) -> PromptTemplate:
        """The template of the defaults, with the policy's marker."""
        tokenizer, _, markup = self.prepared
        return default_template(tokenizer, markup).with_markup(markup)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return getattr(self.shape, "num_hidden_layers", 32)

    @property
    def cache_bytes(self) -> int:
        """Size of the cache of one token, in 16 bits."""
        hidden, heads = getattr(self.shape, "hidden_size", 4096), getattr(self.shape, "num_attention_heads", 32)
        size = getattr(self.shape, "head_dim", None) or hidden // heads
        return 4 * self.layers * (getattr(self.shape, "num_key_value_heads", None) or heads) * size

    def activation_bytes(self, *, checkpointing: bool) -> int:
        """Rough size of what a forward pass keeps of one token for the backward pass, with its logits."""
        kept = 4 if checkpointing else 72  # bytes for each number of a layer's output
        return getattr(self.shape, "hidden_size", 4096) * self.layers * kept + 8 * len(self.tokenizer)


def check_weights(source: str, name: str) -> None:
    """Check that a local directory has files of weights.

    Raises:
        InputError: there are none.
    """
    folder = Path(source)
    if folder.is_dir() and not [path for kind in WEIGHTS for path in folder.glob(kind)]:
        raise InputError(
            f"{name}: no weights in the directory ({', '.join(WEIGHTS)}). Copy or download the model again."
        )


def size_text(weights: int) -> str:
    """A number of weights for a reader.

    >>> size_text(163_904), size_text(134_515_008), size_text(8_030_261_248)
    ('164 thousand', '135 million', '8.0 billion')
    """
    if weights >= 1e9:
        return f"{weights / 1e9:.1f} billion"
    return f"{weights / 1e6:.0f} million" if weights >= 1e6 else f"{weights / 1e3:.0f} thousand"
