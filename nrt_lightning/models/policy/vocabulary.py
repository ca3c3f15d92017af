"""Token ids that a tokenizer has and a model lacks, and the reverse; positions that a model has."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nrt_lightning.models.policy.markup import initialize_marker
from nrt_lightning.models.scoring.frequencies import frequency_limit

log = logging.getLogger(__name__)
UNUSED: WeakKeyDictionary[nn.Module, tuple[int, int, list[int]]] = WeakKeyDictionary()  # by policy
TABLES = ("wpe", "embed_positions", "position_embeddings", "position_embedding", "embed_position")
TABLE_TYPES = ("gptj", "codegen")  # their rotary tables do not grow


def fit_vocabulary(model: PreTrainedModel, policy: Any) -> None:
    """Give a model the rows that its policy needs, those of a new marker initialized."""
    if policy.grows_vocabulary:
        grow_vocabulary(model, policy.tokenizer)
    if policy.marker_is_new:
        initialize_marker(model, policy.markup.marker_ids[0], policy.tokenizer.eos_token_id)


@torch.no_grad()
def grow_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give every token of the tokenizer a row: padding or other tokens may have been added to the tokenizer alone.

    New rows are copies of the end token's, the same in all processes.
    """
    size = model.get_input_embeddings().weight.size(0)  # type: ignore[operator]
    needed = max(tokenizer.get_vocab().values()) + 1
    if needed <= size:
        return
    model.resize_token_embeddings(needed, mean_resizing=False)
    log.info("vocabulary grown from %d to %d rows for tokens that the tokenizer has and the model lacks", size, needed)
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        for rows in embedding.parameters(recurse=False):
            rows[size:] = rows[tokenizer.eos_token_id]


def unused_ids(policy: Any) -> list[int]:
    """Ids that the model can write and that are no tokens: embeddings are padded, and vocabularies have gaps."""
    rows, known = policy.network.config.get_text_config().vocab_size, len(policy.tokenizer)
    found = UNUSED.get(policy)
    if found is None or found[:2] != (rows, known):
        tokens = set(policy.tokenizer.get_vocab().values())
        found = UNUSED[policy] = (rows, known, [token for token in range(rows) if token not in tokens])
    return found[2]


def position_limit(model: Any) -> int | None:
    """The number of positions of a model; None if it has no limit of its own.

    Some have a table of positions. Others have rotary frequencies that change beyond a length (`frequency_limit`).
    """
    config = model.config.get_text_config()
    if config.model_type in TABLE_TYPES:
        return int(getattr(config, "n_positions", config.max_position_embeddings))
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in TABLES:
            return module.num_embeddings - int(getattr(module, "offset", 0))
    return frequency_limit(model)


def why(policy: Any) -> str:
    """Why a model has no more positions than `position_limit`, if not for a table of them."""
    limited = frequency_limit(policy.network) is not None
    return " (beyond, its rotary frequencies change with the longest row of a batch)" if limited else ""
