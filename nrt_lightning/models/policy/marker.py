"""The marker: the one token that ends a trace and begins the answer."""

from __future__ import annotations

import logging

import torch
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)


def add_marker(tokenizer: PreTrainedTokenizerBase, marker: str) -> tuple[int, bool]:
    """The marker's token id, and whether the tokenizer had to learn it.

    A marker that the tokenizer knows as an added token already (an exported policy, or a base with an end-of-thought
    token of its own) is used as it stands.

    Raises:
        InputError: the marker already means something else: it is the tokenizer's bos, eos, pad or unk token, or a
            piece of ordinary text.
    """
    if not marker.strip():
        raise InputError(f"policy.marker {marker!r}: give it a text, for instance '<|response_start|>'.")
    roles = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    for role, token in roles.items():
        if token == marker:
            raise InputError(
                f"policy.marker {marker!r} is already the tokenizer's {role}: a trace would end wherever that token "
                "stands. Choose a text of its own, for instance '<|response_start|>'."
            )
    known = tokenizer.get_vocab().get(marker)
    if known is not None:
        if known not in tokenizer.added_tokens_decoder:
            raise InputError(
                f"policy.marker {marker!r} is token {known} of the tokenizer's ordinary vocabulary: any text may hold "
                "it, so it cannot end a trace. Choose a text of its own, for instance '<|response_start|>'."
            )
        return known, False
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False)])
    return tokenizer.get_vocab()[marker], True


@torch.no_grad()
def initialize_marker(model: PreTrainedModel, marker_id: int, eos_id: int) -> None:
    """Give the marker its rows in the input and output embeddings, copied from the end token's.

    The vocabulary grows if the marker does not fit and is never shrunk. The end token is what the model writes when
    it has finished a text, so its row is where "finished" is said already; from the mean of all rows the marker was
    never emitted (docs/how_it_works.md).
    """
    size = model.get_input_embeddings().weight.size(0)  # type: ignore[operator]
    if marker_id >= size:
        model.resize_token_embeddings(marker_id + 1, mean_resizing=False)
        log.info("vocabulary grown from %d to %d rows for the marker", size, marker_id + 1)
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        for rows in embedding.parameters(recurse=False):  # weight and, seldom, bias; tied weights are copied twice
            rows[marker_id] = rows[eos_id]
