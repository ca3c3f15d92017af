"""Decoding of models that keep a state. Prompts of equal length are decoded together, so that none is padded."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from typing_extensions import override

from nrt_lightning.functional.memory import raise_out_of_memory
from nrt_lightning.models.scoring.base import last_logits
from nrt_lightning.models.scoring.recurrence import cache_argument
from nrt_lightning.rollouts.decoding import Decoder

log = logging.getLogger(__name__)

TRIED = 6  # tokens by which decoding with the state is compared with whole sequences
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}  # nats
EXACT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # models that were tried


class StateDecoder(Decoder):
    """Decodes with the model's state, of all rows together: a state cannot be cut out of most models.

    Args:
        model: the model.
        ids: prompts of equal length, one for each row, [A, P].
    """

    min_drop_share = 2.0  # rows never leave

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model, self.name, self.length = model, cache_argument(model), 0
        self.state: Any = DynamicCache(config=model.config)
        self.first = self._forward(ids)  # [A, V] after the prompts

    def _forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(self.length, self.length + ids.shape[1], device=ids.device).expand_as(ids)
        inputs = {"input_ids": ids, "position_ids": places, str(self.name): self.state, "use_cache": True}
        self.length += ids.shape[1]
        return last_logits(self.model, inputs)

    @override
    def step(self, tokens: Tensor) -> Tensor:
        return self._forward(tokens.unsqueeze(1))

    @override
    def keep(self, rows: Tensor) -> None:
        raise AssertionError("rows never leave")


class WholeDecoder(Decoder):
    """Computes the whole sequences again for every token: slow, and right for every causal model.

    Args:
        model: the model.
        ids: prompts of equal length, one for each row, [A, P].
    """

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        self.first = self._forward()  # [A, V]

    def _forward(self) -> Tensor:
        places = torch.arange(self.ids.shape[1], device=self.ids.device).expand_as(self.ids)
        return last_logits(self.model, {"input_ids": self.ids, "position_ids": places, "use_cache": False})

    @override
    def step(self, tokens: Tensor) -> Tensor:
        self.ids = torch.cat([self.ids, tokens.unsqueeze(1)], dim=1)
        return self._forward()

    @override
    def keep(self, rows: Tensor) -> None:
        self.ids = self.ids[rows]


def recurrent_decoder(model: Any, ids: Tensor) -> StateDecoder | WholeDecoder:
    """The fastest decoder that is right for a model, which is tried once.

    Args:
        model: the model, in eval mode.
        ids: prompts of equal length, one for each row, [A, P].
    """
    if model not in EXACT:
        difference = state_difference(model, ids.device)
        EXACT[model] = difference <= BOUNDS.get(model.dtype, 1e-4)
        if not EXACT[model]:
            log.warning(
                "%s does not decode with its state as it computes whole sequences (log-probs differ by %.2g nats). "
                "Every token is computed from the whole sequence, which is slow.", type(model).__name__, difference,
            )  # fmt: skip
    return StateDecoder(model, ids) if EXACT[model] else WholeDecoder(model, ids)


@torch.no_grad()
def state_difference(model: Any, device: torch.device) -> float:
    """The largest difference of log-probs between decoding with the state and whole sequences; infinite if it fails."""
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(2 * (TRIED + 3), device=device).view(2, -1) * 7 % vocabulary  # [2, 3 + TRIED]
    prompts, rest = tokens[:, :3], tokens[:, 3:]
    try:
        one, other = StateDecoder(model, prompts), WholeDecoder(model, prompts)
        pairs = [(one.first, other.first)]
        pairs += [(one.step(column), other.step(column)) for column in rest.unbind(dim=1)]
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise_out_of_memory(error)  # otherwise the model has a cache of its own
        return float("inf")
    return max(float((a.float().log_softmax(-1) - b.float().log_softmax(-1)).abs().max()) for a, b in pairs)


def equal_lengths(prompts: Tensor, lengths: Tensor) -> list[Tensor]:
    """Prompts split into those of equal length.

    Args:
        prompts: indices of the prompts, [b].
        lengths: of all prompts, [B].

    >>> [part.tolist() for part in equal_lengths(torch.tensor([0, 1, 2]), torch.tensor([4, 6, 4]))]
    [[0, 2], [1]]
    """
    own = lengths[prompts]
    return [prompts[own == length] for length in own.unique()]
