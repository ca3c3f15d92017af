"""The scoring forward: from rollouts to log-probs, with the output head only where a log-prob is needed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nrt_lightning.functional.logprobs import entropy, token_logprobs
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel


class ScoringForward(ABC):
    """How a model is run over rollouts."""

    @abstractmethod
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """Scores of every completion token; of the answers after the empty trace too if `baseline`."""


@dataclass(frozen=True)
class PromptCopies(ScoringForward):
    """Every completion with a copy of its prompt before it: works with any causal language model."""

    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """See `ScoringForward`."""
        scores = self._score(model, rollouts)
        if baseline:
            empty = rollouts.empty_traces()
            with torch.no_grad():
                scores.baseline_logprobs = self._score(model, empty).logprobs[:, 1:]  # [B, T] without the marker
        return scores

    def _score(self, model: PreTrainedModel, rollouts: Rollouts) -> Scores:
        prompts = rollouts.group_ids
        ids = torch.cat([rollouts.prompt_ids[prompts], rollouts.completion_ids], dim=1)  # [N, P + C]
        wanted = rollouts.segments.completion_mask  # [N, C]
        mask = torch.cat([rollouts.prompt_mask[prompts], wanted], dim=1)  # [N, P + C]
        before = torch.zeros_like(mask)
        before[:, rollouts.prompt_ids.shape[1] - 1 : -1] = wanted  # a token is predicted at the position before it
        inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions(mask), "use_cache": False}
        logits = logits_at(model, before, inputs)  # [M, V]
        return scatter_scores(logits, rollouts.completion_ids, wanted)


def positions(mask: Tensor) -> Tensor:
    """Position ids that count real tokens only, 0 at padding before the first. [N, S] -> [N, S]"""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def logits_at(model: PreTrainedModel, where: Tensor | tuple[Tensor, Tensor], inputs: dict[str, Any]) -> Tensor:
    """Logits at the positions where a mask [N, S] is True, in row-major order, or at rows and columns [M]. -> [M, V]

    The head sees the chosen positions only, whatever the model does with its output afterwards (soft caps, scales).
    """
    with head_sees(model, where):
        return model(**accepted(model, inputs)).logits[0]


@contextmanager
def head_sees(model: PreTrainedModel, where: Tensor | tuple[Tensor, Tensor]) -> Iterator[None]:
    """Inside, the output head gets `hidden[where]` as one row `[1, M, H]` instead of `[N, S, H]`."""
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][where].unsqueeze(0),))
    try:
        yield
    finally:
        hook.remove()


def accepted(model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs this model's forward takes: models without rotary positions may have no `position_ids`."""
    parameters = inspect.signature(model.forward).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return inputs
    return {name: value for name, value in inputs.items() if name in parameters}


def scatter_scores(logits: Tensor, ids: Tensor, mask: Tensor) -> Scores:
    """Scores from logits [M, V] at the M True positions of `mask` [N, C], 0 elsewhere."""
    logprobs = token_logprobs(logits, ids[mask])  # [M]
    with torch.no_grad():
        entropies = entropy(logits)  # [M]
    empty = torch.zeros(mask.shape, dtype=logprobs.dtype, device=mask.device)
    return Scores(
        logprobs=empty.masked_scatter(mask, logprobs),
        entropy=empty.masked_scatter(mask, entropies),
    )
