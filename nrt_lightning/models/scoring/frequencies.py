"""Rotary frequencies that change with the longest row of a batch (longrope, dynamic scaling)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import nn

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from nrt_lightning.structures import Rollouts

LIMITS: WeakKeyDictionary[nn.Module, int | None] = WeakKeyDictionary()  # by model


def frequency_limit(model: PreTrainedModel) -> int | None:
    """The length up to which rotary frequencies are the same for every batch; None if they always are.

    Beyond the length of pretraining, `longrope` takes other frequencies for all rows of a batch with a long one, and
    `dynamic` those of its longest row, or of a longer row before it. A row's log-probs then depend on other rows, and
    those of its first tokens on its last.
    """
    if model not in LIMITS:
        LIMITS[model] = min((limit for module in model.modules() for limit in limits_of(module)), default=None)
    return LIMITS[model]


def limits_of(module: Any) -> list[int]:
    """The limits of a rotary embedding, one for each type of layers that has one."""
    kinds = getattr(module, "rope_type", None)
    kinds = kinds if isinstance(kinds, dict) else {None: kinds}
    found = []
    for layer, kind in kinds.items():
        if kind == "longrope":
            settings = module.config.rope_parameters
            settings = settings if layer is None else settings[layer]
            found.append(int(settings["original_max_position_embeddings"]))
        elif isinstance(kind, str) and "dynamic" in kind:
            found.append(int(module.original_max_seq_len))
    return found


def frequency_refusal(model: PreTrainedModel, length: int) -> str | None:
    """Why sequences of a length have no log-probs of their own; None if they have."""
    limit = frequency_limit(model)
    if limit is None or length <= limit:
        return None
    return (
        f"{type(model).__name__} was pretrained with {limit} tokens, beyond which its rotary frequencies change with "
        f"the longest row of a batch, and sequences have {length}"
    )


def check_frequencies(model: PreTrainedModel, rollouts: Rollouts) -> None:
    """Refuse rows whose log-probs depend on the rows beside them.

    Raises:
        InputError: names the lengths and what bounds them.
    """
    if frequency_refusal(model, rollouts.length) is None:
        return
    lengths = rollouts.prompt_mask.sum(dim=1)[rollouts.group_ids] + rollouts.segments.completion_mask.sum(dim=1)
    if reason := frequency_refusal(model, int(lengths.max())):
        raise InputError(
            f"policy.model: {reason}. Lower data.max_prompt_tokens, data.max_answer_tokens or "
            "sampling.max_trace_tokens, or choose a model without such a limit."
        )
