"""Prompts before the first sampled token: what all of them begin with is read once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from nrt_lightning.models.scoring.base import positions
from nrt_lightning.models.scoring.layout import LEAST, after_common, common_tokens
from nrt_lightning.models.scoring.shared_prompt import cache_refusal
from nrt_lightning.rollouts.decoding import forward


def prefill(model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache) -> tuple[Tensor, Tensor]:
    """Fill a cache with prompts. Instructions that all of them begin with pass through the model once.

    Args:
        model: the model.
        ids: of B prompts, padded on the left, [B, P].
        mask: of their tokens, [B, P].
        cache: empty.

    Returns:
        Logits of the next token [B, V], and the mask of what the cache holds [B, P'].
    """
    common = common_tokens(ids, mask)
    if common < LEAST or cache_refusal(model, ids.shape[1]) is not None:
        return forward(model, ids, mask.long(), positions(mask), cache), mask
    count = len(ids)
    first = ids[:1][mask[:1]][:common].unsqueeze(0)  # [1, common]
    ones = torch.ones_like(first)
    forward(model, first, ones, positions(ones.bool()), cache)
    cache.batch_repeat_interleave(count)
    rest = after_common(mask, common)  # [B, P]
    width = int(rest.sum(dim=1).max())
    ids, rest = ids[:, -width:], rest[:, -width:]
    whole = torch.cat([ones.bool().expand(count, -1), rest], dim=1)  # [B, common + width]
    return forward(model, ids, whole.long(), positions(rest) + common, cache), whole
