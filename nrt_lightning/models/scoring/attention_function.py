"""Which function of those registered with transformers a model attends by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def attention_function(config: Any, name: str) -> Iterator[None]:
    """A context in which the model of a configuration attends by the function with this name."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def attention_refusal(model: PreTrainedModel) -> str | None:
    """Why a model's attention cannot be replaced by another function; None if it can."""
    attention = model.config._attn_implementation
    if attention != "sdpa":
        return f"it needs policy.attn_implementation sdpa, not {attention}"
    if not getattr(model, "_supports_attention_backend", False):
        return f"the attention of {type(model).__name__} cannot be replaced"
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        return f"{type(model).__name__} caps its attention logits"
    return None
