"""Whether the rows of a run fit into the positions of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nrt_lightning.data.encoding import EncodedRows
from nrt_lightning.errors import InputError
from nrt_lightning.export.record import LIMITS, limits_of
from nrt_lightning.models.policy.vocabulary import position_limit, why
from nrt_lightning.rollouts.answering import ROOM


def check_positions(module: Any, data: Any) -> None:
    """Refuse rows that need more positions than a model with a table of them has.

    A dataloader of the user's own is not looked at; the engine refuses its requests.

    Args:
        module: with loaded weights.
        data: the data module; None for dataloaders.

    Raises:
        InputError: names the split, the number of tokens and the settings.
    """
    limit = position_limit(module.policy.network)
    encoded = getattr(data, "encoded", None)
    if limit is None or not isinstance(encoded, Mapping):
        return
    trace, written = (limits_of(module).get(name, 0) for name in LIMITS)
    method = getattr(module, "method", None)
    marker = 0 if method is None else len(module.policy.markup.marker_ids)
    if not module.metrics.names and not (method is not None and method.needs_policy_answers):
        written = 0  # answers have the length of the reference answers
    for split, rows in encoded.items():
        if not isinstance(rows, EncodedRows) or split == "predict":
            continue
        longest = max(
            len(rows.prompts[index]) + max(len(rows.answers[index]) + ROOM, written) for index in range(len(rows))
        )
        if longest + trace + marker > limit:
            raise InputError(
                f"data.{split}: prompt, trace and answer need up to {longest + trace + marker} tokens, and "
                f"policy.model {module.policy.source!r} has {limit} positions{why(module.policy)}. Lower "
                f"sampling.max_trace_tokens ({trace}), data.max_prompt_tokens or max_answer_tokens, or choose another "
                "model."
            )
