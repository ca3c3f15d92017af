"""The policy: a causal language model of transformers with its tokenizer and marker."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError
from nrt_lightning.functional.modes import evaluating
from nrt_lightning.functional.validation import DTYPES, check_choice, check_tokenizer
from nrt_lightning.models.adapters.base import Adapter, warn_of_frozen_marker
from nrt_lightning.models.adapters.quantization import Quantization, keep_layout
from nrt_lightning.models.policy.digests import base_digest, weights_digest
from nrt_lightning.models.policy.frequencies import FloatFrequencies
from nrt_lightning.models.policy.loading import (
    check_live,
    check_model,
    random_weights,
    read,
    resolve,
    set_pad_token,
    skeleton,
    stored_weights,
)
from nrt_lightning.models.policy.markup import add_markup, with_turn_end
from nrt_lightning.models.policy.modes import training_mode
from nrt_lightning.models.policy.trained_state import keep_only_trained
from nrt_lightning.models.policy.vocabulary import fit_vocabulary
from nrt_lightning.models.scoring.base import ScoringForward
from nrt_lightning.models.scoring.best import BestScoring
from nrt_lightning.models.sharding.base import NoSharding, Sharding

if TYPE_CHECKING:
    from nrt_lightning.structures import Rollouts, Scores


class Policy(FloatFrequencies):
    """A causal language model that writes traces and answers.

    The constructor reads and checks configuration and tokenizer; `load` reads the weights, which Lightning does in
    `configure_model`. In Python, `model` may also be a live `PreTrainedModel`. It and its tokenizer are changed in
    place: marker and adapter are added.

    Args:
        model: a local directory, a hub id, or `embedded:NAME` for a base shipped with this package.
        marker: text that ends a trace and begins the answer: a token, or any text of ordinary tokens. `<|name|>` is
            added to a tokenizer that lacks it. null for a marker that the tokenizer has, its end of thought, or a text.
        separator: text between marker and answer; null for one space, or nothing after a token, a tag or white space.
        answer_end: text or token that ends an answer; null for what ends a turn in the data's chat template, or the
            tokenizer's end token.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights as loaded; Lightning's `precision` may change it.
        weights: `pretrained`, or `random` to initialize from the configuration alone.
        attn_implementation: of transformers, for instance `sdpa`, `eager`, `flash_attention_2`; null lets it choose.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        pad_token: an existing token that pads, for tokenizers without a padding token.
        trust_remote_code: run code that comes with the model.
        scoring: the forward pass that computes log-probs; by default the cheapest that the model allows.
        adapter: train these few new weights and freeze the base; null trains all weights.
        quantization: how the frozen base is stored; null for `dtype`.
        dropout: keep the base's own, and jitter, in training and the rewards that it gives; adapters have their own.
        tokenizer: of a live model.

    Raises:
        InputError: no such model, not a causal language model, a tokenizer without an end or padding token, a marker
            that has another meaning, an adapter that does not fit, or a setting that a live model cannot have.

    Example:
        >>> policy = Policy("embedded:registers-base").load()
        >>> policy.markup.marker
        '<|response_start|>'
    """

    grows_vocabulary = True  # False where the tokenizer is not the model's

    def __init__(
        self,
        model: str | os.PathLike,  # with PreTrainedModel in this union jsonargparse would read files
        marker: str | None = None,
        *,
        separator: str | None = None,
        answer_end: str | None = None,
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        weights: Literal["pretrained", "random"] = "pretrained",
        attn_implementation: str | None = None,
        activation_checkpointing: bool = False,
        pad_token: str | None = None,
        trust_remote_code: bool = False,
        scoring: ScoringForward = BestScoring(),  # noqa: B008  (frozen settings)
        adapter: Adapter | None = None,
        quantization: Quantization | None = None,
        dropout: bool = False,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__()
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__", "tokenizer")}
        check_choice("policy.dtype", dtype, DTYPES)
        check_choice("policy.weights", weights, ("pretrained", "random"))
        live: Any = None if isinstance(model, str | os.PathLike) else settings.pop("model")
        self.live = live is not None
        self.settings: dict[str, Any] = settings
        self.weights, self.activation_checkpointing = weights, activation_checkpointing
        remote_code = {"trust_remote_code": trust_remote_code}
        self.hub_kwargs = remote_code | ({"revision": revision} if revision else {})
        self.model_kwargs = remote_code | ({"attn_implementation": attn_implementation} if attn_implementation else {})
        self.scoring, self.adapter, self.quantization = scoring, adapter, quantization
        if self.live:
            check_live(live, tokenizer, settings, Policy.__init__.__kwdefaults__ or {})
            self.source: str = live.name_or_path or type(live).__name__
            self.dtype: torch.dtype = live.dtype
            self.config: Any = live.config
        elif tokenizer is not None:
            raise InputError(f"policy.tokenizer is given, but policy.model {model!r} has its own. Remove it.")
        else:
            self.source, self.dtype = resolve(model), getattr(torch, dtype)
            self.config = self._read("config", AutoConfig)
        self.tokenizer: Any = tokenizer or self._read("tokenizer", AutoTokenizer)
        set_pad_token(self.tokenizer, pad_token)
        check_tokenizer(self.tokenizer)
        check_model(self.config, self.tokenizer, f"policy.model {self.source!r}")
        if quantization is not None:
            quantization.check()
        if adapter is not None:
            adapter.check(live or skeleton(self.config, **remote_code))
            keep_only_trained(self)
        self.marker_is_new, self.markup = add_markup(self.tokenizer, marker, separator, answer_end, self.source)
        self.turn_end: str | None = None  # of the data's template, where it is known
        self.sharding: Sharding = NoSharding()
        self.model: Any = self._prepare(live) if self.live else None  # PreTrainedModel, or PeftModel with an adapter

    def sibling(self, **settings: Any) -> Policy:
        """Another policy with the same settings except those given; a live model's also needs a `model`."""
        return Policy(**self.settings | settings)

    @property
    def readable(self) -> bool:
        """True if the initial weights can be read again: they are neither a live model's nor random."""
        return not self.live and self.weights == "pretrained"

    def _read(self, what: str, auto: Any) -> Any:
        return read(auto, what, self.source, **self.hub_kwargs)

    def load(self, sharding: Sharding | None = None) -> Policy:
        """Read the weights, once, and lay them out over processes; None keeps them whole in each."""
        layout = sharding or self.sharding
        if self.model is None:
            adapter_dtype = None if self.adapter is None else self.adapter.dtype
            layout.check(self.dtype, quantized=self.quantized, adapter_dtype=adapter_dtype)
            self.model = self._prepare(self._read_weights(as_stored=layout.active))
        if layout.active and not self.sharding.active:
            self.sharding = copy.copy(layout)  # each policy is gathered by itself
            network = self.sharding.apply(self.network, self.dtype, has_adapter=self.adapter is not None)
            if self.adapter is None:
                self.model = network
            else:
                self.model.base_model.model = network
        return self

    def _read_weights(self, *, as_stored: bool) -> PreTrainedModel:
        if self.weights == "random":
            # The same in all processes, and after a resume if checkpoints do not hold them.
            repeatable, kwargs = as_stored or self.adapter is not None, self.model_kwargs
            return random_weights(self.config, self.dtype, self.quantization, repeatable=repeatable, **kwargs)
        kwargs = self.model_kwargs | self.hub_kwargs
        return stored_weights(self.source, self.dtype, self.quantization, as_stored=as_stored, **kwargs)

    def _prepare(self, model: PreTrainedModel) -> Any:
        fit_vocabulary(model, self)
        keep_layout(model)
        training_mode(model, checkpointing=self.activation_checkpointing, dropout=self.settings["dropout"])
        if self.adapter is None:
            return model
        if self.marker_is_new:
            warn_of_frozen_marker(self.adapter, self.source)
        if not self.readable and model.device.type != "meta":
            self.base = weights_digest(model)
        return self.adapter.apply(model, self.markup.marker_stops())

    @property
    def network(self) -> PreTrainedModel:
        """The loaded model; with an adapter, the base with the adapter in its layers.

        Raises:
            RuntimeError: the weights have not been loaded.
        """
        if self.model is None:
            raise RuntimeError("The policy's weights are not loaded: call policy.load() first.")
        return self.model if self.adapter is None else self.model.get_base_model()

    @property
    def quantized(self) -> bool:
        """True if the base is stored in fewer bits, by `quantization` or in its files."""
        return self.quantization is not None or getattr(self.config, "quantization_config", None) is not None

    def adapter_disabled(self) -> AbstractContextManager[None]:
        """A context in which the base runs without its adapter."""
        return self.model.disable_adapter()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.network.parameters()).device

    @property
    def eos_ids(self) -> list[int]:
        """The tokens that end an answer: the tokenizer's and those of the model's generation config."""
        ids = getattr(self.network.generation_config, "eos_token_id", None)
        more = ids if isinstance(ids, list) else [ids]
        own = self.markup.end_ids if self.markup.end_token else ()
        return sorted({self.tokenizer.eos_token_id, *own, *(i for i in more if i is not None)})

    def follow(self, turn_end: str | None) -> None:
        """Let answers end as turns of the data's template do, unless `answer_end` is set."""
        self.markup = with_turn_end(self.markup, self.tokenizer, turn_end, self.settings["answer_end"])
        self.turn_end = turn_end or ""

    @cached_property
    def base(self) -> str:
        """A digest of the weights before training."""
        return base_digest(self.source, **self.hub_kwargs)

    def score(self, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        """Log-probs and entropy of the completions' tokens, with gradient if it is enabled.

        Args:
            rollouts: N completions of B prompts.
            baseline: also score the answers after the empty trace, without gradient.
        """
        return self.scoring(self.network, rollouts, baseline=baseline)

    forward = score

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context in eval mode and without gradient; it restores the mode on exit."""
        with evaluating(self):
            yield
        self.sharding.free(self.network)

    def gathered(self) -> AbstractContextManager[None]:
        """A context with whole weights in every process, for sampling without communication."""
        return self.sharding.gathered(self.network)
