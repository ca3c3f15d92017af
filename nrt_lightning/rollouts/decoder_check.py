"""Whether decoding is right for a model: tried once on a few tokens, against plain forward passes of each row alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nrt_lightning.functional.memory import raise_out_of_memory
from nrt_lightning.models.policy.vocabulary import position_limit
from nrt_lightning.models.scoring.layout import LEAST
from nrt_lightning.models.scoring.self_check import least_of, plain_logits, some_tokens
from nrt_lightning.rollouts.decoding import Decoder, GrowingDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

Start = Callable[[Tensor, Tensor], tuple[Tensor, Decoder]]  # prompts and their mask -> logits and a decoder
NEW = 4  # tokens that are decoded
OWN = (2, 4)  # tokens of the prompts after what they begin with in common: of different lengths, so that one is padded
DIFFERENCES: WeakKeyDictionary[nn.Module, dict[type, float]] = WeakKeyDictionary()  # by decoder, nats
RIGHT: WeakKeyDictionary[nn.Module, dict[type, bool]] = WeakKeyDictionary()  # by decoder


def decodes(model: PreTrainedModel, kind: type[Decoder], start: Start) -> bool:
    """True if a decoder gives the log-probs of plain forward passes of each row alone. The model is tried once.

    Args:
        model: with its weights, in eval mode.
        kind: of the decoder.
        start: processes prompts [2, P] and makes the decoder.
    """
    known, right = DIFFERENCES.setdefault(model, {}), RIGHT.setdefault(model, {})
    if kind not in right:
        try:
            known[kind] = max(difference(model, start, common) for common in beginnings(model))
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError) as error:
            raise_out_of_memory(error)
            known[kind] = float("inf")  # the model does not take such masks
        right[kind] = known[kind] <= least_of(model)
        if not right[kind]:
            instead = "prompts of equal length, without padding" if kind is GrowingDecoder else "a growing cache"
            log.warning(
                "%s is not used: for %s its log-probs differ from those of a plain forward pass by %.2g nats. It is "
                "decoded with %s.", kind.__name__, type(model).__name__, known[kind], instead,
            )  # fmt: skip
    return right[kind]


def beginnings(model: Any) -> list[int]:
    """How many tokens the two prompts begin with in common: none, and enough that they are read once."""
    limit = position_limit(model)
    return [common for common in (0, LEAST) if limit is None or common + max(OWN) + NEW <= limit]


@torch.no_grad()
def difference(model: PreTrainedModel, start: Start, common: int) -> float:
    """The largest difference of log-probs between a decoder and plain forward passes, in nats.

    Args:
        model: the model.
        start: makes the decoder.
        common: tokens that the prompts begin with in common.
    """
    rows = few_rows(model, common)
    width = common + max(OWN)
    column = torch.arange(width, device=model.device)
    mask = torch.stack([column >= width - common - own for own in OWN])  # [2, P]
    ids = torch.zeros_like(mask, dtype=torch.long)
    for row, own in enumerate(OWN):
        ids[row, mask[row]] = rows[row][: common + own]
    logits, decoder = start(ids, mask)
    found = 0.0
    expected = [plain_logits(model, tokens.unsqueeze(0))[0, -NEW - 1 : -1] for tokens in rows]  # [NEW, V] each
    for step in range(NEW):
        tokens = torch.stack([tokens[step - NEW] for tokens in rows])  # [2]
        found = max(found, apart(logits, torch.stack([each[step] for each in expected]), tokens))
        if step + 1 < NEW:
            logits = decoder.step(tokens)
    return found


def few_rows(model: PreTrainedModel, common: int) -> list[Tensor]:
    """Two texts without meaning: what they begin with in common, and their own tokens with `NEW` to decode."""
    begin = some_tokens(model, 90, common)
    return [torch.cat([begin, some_tokens(model, 20 * row, own + NEW)]) for row, own in enumerate(OWN)]


def apart(one: Tensor, other: Tensor, tokens: Tensor) -> float:
    """The largest difference of the log-probs of tokens [...] by logits [..., V]; infinite if only one is finite."""
    first, second = (x.float().log_softmax(-1).gather(-1, tokens.unsqueeze(-1)) for x in (one, other))
    found = torch.where(first.isfinite() | second.isfinite(), (first - second).abs(), 0.0).max()
    return float(found.nan_to_num(float("inf")))
