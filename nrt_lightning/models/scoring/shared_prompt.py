"""The scoring forward that reads every prompt once: a group's completions share its keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from nrt_lightning.errors import InputError
from nrt_lightning.functional.logprobs import entropy, token_logprobs
from nrt_lightning.models.scoring.base import ScoringForward, accepted, positions, scatter_scores, score_positions
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class SharedPrompt(ScoringForward):
    """Every prompt goes through the model once and its completions attend to its cache, with gradient through it.

    The same log-probs and gradients as `PromptCopies` for a fraction of the work: at prompts of 256 tokens and 8
    completions of 128 about half of it. Needs a model whose cache keeps every key and value of the prompt.

    Raises:
        InputError: at the first use, if the model's cache does not allow it.
    """

    @classmethod
    def refusal(cls, model: PreTrainedModel, length: int) -> str | None:
        """Why this model cannot share the prompts of sequences this long, or None if it can."""
        if checkpoints_activations(model):
            return "transformers switches the cache off under activation checkpointing"
        return cache_refusal(model, length)

    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """See `ScoringForward`."""
        if reason := self.refusal(model, rollouts.length):
            raise InputError(f"policy.scoring SharedPrompt cannot be used: {reason}. Set it to PromptCopies or null.")
        cache = DynamicCache(config=model.config)
        inputs = {
            "input_ids": rollouts.prompt_ids,
            "attention_mask": rollouts.prompt_mask.long(),
            "position_ids": positions(rollouts.prompt_mask),
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        first = model(**accepted(model, inputs)).logits[:, -1]  # [B, V] of the token after the prompt
        scores = score_completions(model, rollouts, cache, first)
        if baseline:
            with torch.no_grad():
                empty = score_completions(model, rollouts.empty_traces(), cache, first)
            scores.baseline_logprobs = empty.logprobs[:, 1:]  # [B, T] without the marker
        return scores


def checkpoints_activations(model: PreTrainedModel) -> bool:
    """Whether the model computes activations again in the backward pass."""
    flag = "is_activation_checkpointing"  # the old name gives a warning where there is a new one
    return getattr(model, flag if hasattr(model, flag) else "is_gradient_checkpointing")


def cache_refusal(model: PreTrainedModel, length: int) -> str | None:
    """Why a cache does not keep all of a sequence this long, or None if it does."""
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            if layer.sliding_window < length:
                window = layer.sliding_window
                return f"{type(model).__name__} attends to windows of {window} tokens, sequences have {length}"
        elif type(layer) is not DynamicLayer:
            return f"{type(model).__name__} has layers of another kind of cache ({type(layer).__name__})"
    return None


def score_completions(model: PreTrainedModel, rollouts: Rollouts, prompts: DynamicCache, first: Tensor) -> Scores:
    """Scores of completions that go on from their prompts' cache.

    Args:
        model: whose cache it is.
        rollouts: N completions.
        prompts: keys and values of the B prompts; left as it is.
        first: logits of the token after each prompt, [B, V].
    """
    groups, wanted = rollouts.group_ids, rollouts.segments.completion_mask  # [N], [N, C]
    place = rollouts.prompt_mask.sum(dim=1, keepdim=True)[groups]  # [N, 1] of the first completion token
    inputs: dict[str, Any] = {
        "input_ids": rollouts.completion_ids,
        "attention_mask": torch.cat([rollouts.prompt_mask[groups], wanted], dim=1).long(),  # [N, P + C]
        "position_ids": place + torch.arange(wanted.shape[1], device=place.device),  # [N, C]
        "past_key_values": repeated(prompts, groups, model.config),
        "use_cache": True,
    }
    later = wanted.clone()
    later[:, 0] = False  # the first token is predicted by the prompt
    before = torch.zeros_like(later)
    before[:, :-1] = later[:, 1:]
    scores = scatter_scores(*score_positions(model, before, rollouts.completion_ids[later], inputs), later)
    opening = token_logprobs(first[groups], rollouts.completion_ids[:, 0])  # [N]
    with torch.no_grad():
        uncertain = entropy(first)[groups]  # [N]
    begins = torch.zeros_like(wanted)
    begins[:, 0] = wanted[:, 0]
    scores.logprobs = torch.where(begins, opening.unsqueeze(1), scores.logprobs)
    scores.entropy = torch.where(begins, uncertain.unsqueeze(1), scores.entropy)
    return scores


def repeated(cache: DynamicCache, groups: Tensor, config: PretrainedConfig) -> DynamicCache:
    """A new cache with a row for every completion, that of its prompt."""
    new = DynamicCache(config=config)
    layers: list[Any] = cache.layers
    for index, layer in enumerate(layers):
        new.update(layer.keys.index_select(0, groups), layer.values.index_select(0, groups), index)
    return new
