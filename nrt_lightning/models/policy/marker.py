"""The marker: the token that ends a trace and begins the answer."""

from __future__ import annotations

import logging

import torch
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)


def add_marker(tokenizer: PreTrainedTokenizerBase, marker: str) -> tuple[int, bool]:
    """The marker's token id, and True if it was added to the tokenizer.

    An added token that the tokenizer already has is used unchanged, for instance an exported policy's marker or a
    base's end-of-thought token.

    Raises:
        InputError: the marker is empty, the tokenizer's bos, eos, pad or unk token, or a token of ordinary text.
    """
    if not marker.strip():
        raise InputError(f"policy.marker {marker!r} is empty. Give a text, for instance '<|response_start|>'.")
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if getattr(tokenizer, role) == marker:
            raise InputError(
                f"policy.marker {marker!r} is the tokenizer's {role}, so a trace would end at every such token. "
                "Choose another text, for instance '<|response_start|>'."
            )
    known = tokenizer.get_vocab().get(marker)
    if known is not None:
        if known not in tokenizer.added_tokens_decoder:
            raise InputError(
                f"policy.marker {marker!r} is token {known} of the tokenizer's ordinary vocabulary, so traces may "
                "contain it. Choose another text, for instance '<|response_start|>'."
            )
        return known, False
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False)])
    return tokenizer.get_vocab()[marker], True


@torch.no_grad()
def initialize_marker(model: PreTrainedModel, marker_id: int, eos_id: int) -> None:
    """Initialize the marker's rows of the input and output embeddings with the end token's.

    The vocabulary grows if the marker does not fit. The model writes the end token when a text is complete, so a copy
    of its row is soon emitted; the mean of all rows never was (docs/how_it_works.md).
    """
    size = model.get_input_embeddings().weight.size(0)  # type: ignore[operator]
    if marker_id >= size:
        model.resize_token_embeddings(marker_id + 1, mean_resizing=False)
        log.info("vocabulary grown from %d to %d rows for the marker", size, marker_id + 1)
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        for rows in embedding.parameters(recurse=False):  # weight and possibly bias; tied weights are copied twice
            rows[marker_id] = rows[eos_id]
