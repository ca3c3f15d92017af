"""The policy: any causal language model of transformers, with its tokenizer and its marker."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import DTYPES, check_choice
from nrt_lightning.models.adapters.base import Adapter, check_plain, warn_of_frozen_marker
from nrt_lightning.models.adapters.quantization import Quantization, keep_layout
from nrt_lightning.models.policy.digests import base_digest, weights_digest
from nrt_lightning.models.policy.loading import (
    EMBEDDED,
    check_tokenizer,
    random_weights,
    resolve,
    shape_of,
    stored_weights,
)
from nrt_lightning.models.policy.marker import add_marker, initialize_marker
from nrt_lightning.models.policy.modes import evaluating
from nrt_lightning.models.policy.trained_state import keep_only_trained
from nrt_lightning.models.scoring.base import ScoringForward
from nrt_lightning.models.scoring.best import BestScoring
from nrt_lightning.models.sharding.base import NoSharding, Sharding

if TYPE_CHECKING:
    from nrt_lightning.structures import Rollouts, Scores


class Policy(nn.Module):
    """A causal language model that writes traces and answers.

    Building it reads the configuration and the tokenizer and checks them; `load` reads the weights, which Lightning
    does in `configure_model`.

    Args:
        model: a local directory, a hub id, or `embedded:NAME` for a base shipped with this package.
        marker: the text of the token that ends a trace and begins the answer; added where the tokenizer lacks it.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights as loaded; Lightning's `precision` may change it.
        weights: `pretrained`, or `random` to initialize from the configuration alone.
        attn_implementation: of transformers, for instance `sdpa`, `eager`, `flash_attention_2`; null lets it choose.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        pad_token: an existing token that pads, for tokenizers that name none.
        trust_remote_code: run code that comes with the model. Off unless you ask for it.
        scoring: the forward pass that gives log-probs; by default the cheapest that the model allows.
        adapter: train these few new weights and freeze the base; null trains all weights.
        quantization: how the frozen base is stored; null for `dtype`.

    Raises:
        InputError: no such model, a model that is not a causal language model, a tokenizer without an end or padding
            token, a marker that already means something else, or an adapter that does not fit the model.

    Example:
        >>> policy = Policy("embedded:registers-base").load()
        >>> policy.tokenizer.decode([policy.marker_id])
        '<|response_start|>'
    """

    def __init__(
        self,
        model: str,
        marker: str = "<|response_start|>",
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
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_choice("policy.dtype", dtype, DTYPES)
        check_choice("policy.weights", weights, ("pretrained", "random"))
        self.source = resolve(model)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.weights = weights
        self.attn_implementation = attn_implementation
        self.activation_checkpointing = activation_checkpointing
        self.remote_code = {"trust_remote_code": trust_remote_code}
        self.hub_kwargs = self.remote_code | ({"revision": revision} if revision else {})
        self.scoring = scoring
        self.adapter = adapter
        self.quantization = quantization
        self.config = self._read("config", AutoConfig)
        if getattr(self.config, "is_encoder_decoder", False):
            raise InputError(f"policy.model {model!r} is an encoder-decoder; NRT needs a causal language model.")
        self.tokenizer = self._read("tokenizer", AutoTokenizer)
        check_tokenizer(self.tokenizer, model, pad_token)
        self.marker_id, self.marker_is_new = add_marker(self.tokenizer, marker)
        self.model: Any = None  # PreTrainedModel, or PeftModel with an adapter
        self.sharding: Sharding = NoSharding()
        self._check_parts()

    @classmethod
    def wrap(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        marker: str = "<|response_start|>",
        scoring: ScoringForward = BestScoring(),  # noqa: B008
        adapter: Adapter | None = None,
        activation_checkpointing: bool = False,
    ) -> Policy:
        """A policy around a live model and tokenizer, which are changed in place: marker and adapter are added.

        Raises:
            InputError: the model has an adapter already, or this one does not fit it; see also `Policy`.
        """
        check_plain(model)
        policy = cls.__new__(cls)
        nn.Module.__init__(policy)
        policy.settings = {}
        policy.source = getattr(model, "name_or_path", "") or type(model).__name__
        policy.config, policy.dtype = model.config, model.dtype
        policy.scoring, policy.activation_checkpointing = scoring, activation_checkpointing
        policy.adapter, policy.quantization = adapter, None
        policy.sharding = NoSharding()
        policy.tokenizer = tokenizer
        check_tokenizer(tokenizer, policy.source, None)
        if adapter is not None:
            adapter.check(model)
            keep_only_trained(policy)
        policy.marker_id, policy.marker_is_new = add_marker(tokenizer, marker)
        policy.model = policy._prepare(model)
        return policy

    def sibling(self, **settings: Any) -> Policy:
        """Another policy of the same settings but for those given."""
        return Policy(**self.settings | settings)

    @property
    def readable(self) -> bool:
        """Whether the initial weights can be read a second time: not those of a live model, nor random ones."""
        return bool(self.settings) and self.weights == "pretrained"

    def _check_parts(self) -> None:
        if self.quantization is not None:
            self.quantization.check()
        if self.adapter is not None:
            with torch.device("meta"):
                self.adapter.check(AutoModelForCausalLM.from_config(self.config, **self.remote_code))
            keep_only_trained(self)

    def _read(self, what: str, auto: Any) -> Any:
        try:
            return auto.from_pretrained(self.source, **self.hub_kwargs)
        except (OSError, ValueError) as error:
            raise InputError(
                f"policy.model {self.source!r}: its {what} cannot be read. It must be a local directory with a "
                f"config.json and a tokenizer.json, a hub id, or {EMBEDDED}NAME. ({error})"
            ) from error

    def load(self, sharding: Sharding | None = None) -> Policy:
        """Read the weights, once, and lay them out over processes; null for whole in every one."""
        layout = sharding or self.sharding
        if self.model is None:
            adapter_dtype = getattr(self.adapter, "dtype", None)
            layout.check(self.dtype, quantized=self.quantized, adapter_dtype=adapter_dtype)
            self.model = self._prepare(self._read_weights(as_stored=layout.active))
        if layout.active and not self.sharding.active:
            self.sharding = copy.copy(layout)  # each policy is gathered by itself
            has_adapter = self.adapter is not None
            self._replace_network(self.sharding.apply(self.network, self.dtype, has_adapter=has_adapter))
        return self

    def _read_weights(self, *, as_stored: bool) -> PreTrainedModel:
        kwargs: dict[str, Any] = {"attn_implementation": self.attn_implementation} if self.attn_implementation else {}
        if self.weights == "random":
            # The same in other processes; the same later, where checkpoints do not hold them.
            repeatable = as_stored or self.adapter is not None
            kwargs |= self.remote_code
            return random_weights(self.config, self.dtype, self.quantization, repeatable=repeatable, **kwargs)
        kwargs |= self.hub_kwargs
        return stored_weights(self.source, self.dtype, self.quantization, as_stored=as_stored, **kwargs)

    def _prepare(self, model: PreTrainedModel) -> Any:
        if self.marker_is_new:
            initialize_marker(model, self.marker_id, self.tokenizer.eos_token_id)
        keep_layout(model)
        if self.activation_checkpointing:
            name = "activation_checkpointing_enable"  # the old name gives a warning where there is a new one
            enable = getattr(model, name, None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        model.train()  # from_pretrained gives eval mode, and Lightning keeps the mode it finds
        if self.adapter is None:
            return model
        if self.marker_is_new:
            warn_of_frozen_marker(self.adapter, self.source)
        if not self.readable and model.device.type != "meta":
            self._base = weights_digest(model)
        return self.adapter.apply(model, self.marker_id)

    @property
    def network(self) -> PreTrainedModel:
        """The loaded model; with an adapter, the base that has it in its layers.

        Raises:
            RuntimeError: the weights have not been loaded.
        """
        if self.model is None:
            raise RuntimeError("The policy's weights are not loaded: call policy.load() first.")
        return self.model if self.adapter is None else self.model.get_base_model()

    def _replace_network(self, network: Any) -> None:
        if self.adapter is None:
            self.model = network
        else:
            self.model.base_model.model = network

    @property
    def quantized(self) -> bool:
        """Whether the base is stored in fewer bits, by `quantization` or in its own files."""
        return self.quantization is not None or getattr(self.config, "quantization_config", None) is not None

    def adapter_disabled(self) -> AbstractContextManager[None]:
        """The base without its adapter inside."""
        disabled: AbstractContextManager[None] = self.model.disable_adapter()
        return disabled

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def eos_ids(self) -> list[int]:
        """The tokens that end an answer: the tokenizer's and those of the model's generation config."""
        ids = getattr(self.network.generation_config, "eos_token_id", None)
        more = ids if isinstance(ids, list) else [ids]
        return sorted({self.tokenizer.eos_token_id, *(i for i in more if i is not None)})

    @cached_property
    def _base(self) -> str:
        return base_digest(self.source, **self.hub_kwargs)

    def score(self, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        """Log-probs and entropy of the completions' tokens, with gradient where it is enabled.

        Args:
            rollouts: N completions of B prompts.
            baseline: score the answers after the empty trace too, without gradient.
        """
        return self.scoring(self.network, rollouts, baseline)

    def forward(self, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        """As `score`."""
        return self.score(rollouts, baseline=baseline)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode and no gradient inside, the mode before afterwards."""
        with evaluating(self):
            yield
        self.sharding.free(self.network)

    def gathered(self) -> AbstractContextManager[None]:
        """Whole weights inside, in every process: to be sampled from without communication."""
        return self.sharding.gathered(self.network)

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must agree with to belong to this policy."""
        shape = shape_of(self.config) | {"vocabulary": len(self.tokenizer), "marker_id": self.marker_id}
        if self.adapter is None:
            return shape | {"adapter": None}
        # The checkpoint holds nothing of the base, which must be the same.
        return shape | {"adapter": self.adapter.identity(), "quantization": repr(self.quantization), "base": self._base}
