"""LoRA: low-rank updates of frozen linear layers."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.pytorch_utils import Conv1D
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import DTYPES, check_choice
from nrt_lightning.models.adapters.base import Adapter
from nrt_lightning.models.adapters.extras import require
from nrt_lightning.models.adapters.linear_layers import adapted_weights, left_out, linear_names, other_names
from nrt_lightning.randomness import forked_rng

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

ALL_LINEAR: Literal["all-linear"] = "all-linear"


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """Low-rank adaptation: a frozen linear layer W computes `W x + scale * B (A x)` with trained A and B.

    `scale` is alpha / rank. B starts at 0, so training starts from the base. Source: arXiv 2106.09685.

    Args:
        rank: inner dimension of the updates.
        alpha: numerator of the scale.
        dropout: of the updates' inputs, in training: in the forward pass of the loss, and so of rewards that are not
            computed before.
        targets: names of the adapted linear layers, for instance `[q_proj, v_proj]`; `all-linear` for all except the
            output head.
        dora: train the magnitude of each output separately from its direction (DoRA, arXiv 2402.09353).
        rslora: scale by alpha / sqrt(rank), for large ranks (arXiv 2312.03732).
        marker_rows: also train the rows of the frozen embeddings of a marker that is a token.
        dtype: of the trained weights. float32 keeps small updates; FSDPStrategy needs the base's dtype.

    Raises:
        InputError: a setting out of range, targets that the model does not have, or peft is not installed.

    Example:
        >>> LoRA(rank=4, targets=["q_proj", "v_proj"]).alpha
        32.0
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: list[str] | Literal["all-linear"] = ALL_LINEAR
    dora: bool = False
    rslora: bool = False
    marker_rows: bool = True
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError(
                f"adapter.rank is {self.rank}, alpha {self.alpha}, dropout {self.dropout}: rank must be 1 or more, "
                "alpha above 0, and dropout at least 0 and below 1."
            )
        check_choice("adapter.dtype", self.dtype, DTYPES)

    @override
    def check(self, skeleton: PreTrainedModel) -> None:
        require("peft", "policy.adapter LoRA")
        if self.targets == ALL_LINEAR:
            return
        linear = linear_names(skeleton)
        missing = [t for t in self.targets if not any(f".{name}".endswith(f".{t}") for name in linear)]
        if missing or not self.targets:
            offered = sorted({name.rpartition(".")[2] for name in linear})
            raise InputError(
                f"adapter.targets {missing or self.targets} match no linear layer of {type(skeleton).__name__}. "
                f"Its linear layers: {', '.join(offered)}; '{ALL_LINEAR}' selects all."
            )

    @override
    def apply(self, model: PreTrainedModel, marker_ids: list[int]) -> PeftModel:
        from peft import LoraConfig, get_peft_model

        from nrt_lightning.models.adapters.low_rank import fuse_updates
        from nrt_lightning.models.adapters.marker_rows import embedding_names, train_rows_alone

        own = self.marker_rows and bool(marker_ids)
        rows: Any = dict.fromkeys(embedding_names(model), marker_ids) if own else None
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft's annotation is too narrow
            lora_dropout=self.dropout,
            target_modules=self.targets,
            exclude_modules=other_names(model) or None,
            use_dora=self.dora,
            use_rslora=self.rslora,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            trainable_token_indices=rows,
        )
        with warnings.catch_warnings(), forked_rng("adapter"):  # A is initialized at random
            # peft uses an attribute's old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            try:
                peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
            except ValueError as error:  # for instance experts, which peft adapts without dropout and DoRA
                raise InputError(f"policy.adapter LoRA does not fit {type(model).__name__}: {error}") from error
        if self.targets == ALL_LINEAR and (found := left_out(model, adapted_weights(model))):
            log.warning("policy.adapter.targets all-linear adapts %s.", found)
        train_rows_alone(peft_model)
        fuse_updates(peft_model)
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, self.dtype))
        return peft_model

    @override
    def identity(self) -> str:
        kept = ("rank", "alpha", "targets", "dora", "rslora", "marker_rows")
        return f"LoRA({', '.join(f'{name}={getattr(self, name)!r}' for name in kept)})"
