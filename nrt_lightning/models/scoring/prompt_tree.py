"""Prompt trees, for models without a cache: one row per group with its prompt and all its completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.functional.precision import compute_dtype
from nrt_lightning.models.scoring.base import (
    PromptCopies,
    ScoringForward,
    additive,
    at,
    positions,
    scatter_scores,
    score_positions,
)
from nrt_lightning.models.scoring.shared_prompt import cache_refusal
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, PADDING = -1, -2  # branch numbers of positions that belong to no completion


@dataclass(frozen=True)
class PromptTree(ScoringForward):
    """One row per group: the prompt, then its completions, each of which attends to the prompt and itself.

    Gives the same log-probs and gradients as `PromptCopies`. It needs no cache, so it works with activation
    checkpointing. The attention mask is dense: attention costs the square of the row's length.

    Raises:
        InputError: at the first use, if the model does not accept such a mask.
    """

    @override
    def refusal(self, model: PreTrainedModel, length: int) -> str | None:
        attention = model.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            return f"it needs policy.attn_implementation sdpa or eager, not {attention}"
        return cache_refusal(model, length)

    @override
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        self.check(model, rollouts.length)
        tree = plant(rollouts)
        inputs = {
            "input_ids": tree.ids,
            "attention_mask": attention_mask(tree.branches, model),
            "position_ids": tree.position_ids,
            "use_cache": False,
        }
        wanted = rollouts.segments.completion_mask  # [N, C]
        targets, scales = rollouts.completion_ids[wanted], at(rollouts.scales, wanted)  # [M]
        scores = scatter_scores(*score_positions(model, tree.before, targets, inputs, scales), wanted)
        if baseline:
            with torch.no_grad():
                empty = PromptCopies()(model, rollouts.empty_traces())
            scores.baseline_logprobs = empty.logprobs[:, rollouts.direct_answers]  # [B, T]
        return scores


@dataclass
class Tree:
    """Groups as rows. M is the number of completion tokens of all groups."""

    ids: Tensor  # [B, S]
    branches: Tensor  # [B, S] number of the completion, PROMPT or PADDING
    position_ids: Tensor  # [B, S]
    before: tuple[Tensor, Tensor]  # rows and columns [M] of the positions that predict the completion tokens


def plant(rollouts: Rollouts) -> Tree:
    """Concatenate each prompt with the completions of its group."""
    wanted = rollouts.segments.completion_mask  # [N, C]
    width, device = rollouts.prompt_ids.shape[1], wanted.device
    completion, token = wanted.nonzero(as_tuple=True)  # [M] each, in row-major order
    row = rollouts.group_ids[completion]  # [M]
    per_row = torch.bincount(row, minlength=rollouts.prompt_ids.shape[0])  # [B]
    first = per_row.cumsum(dim=0) - per_row  # [B] index of a group's first token among all
    column = width + torch.arange(len(row), device=device) - first[row]  # [M]
    shape = (rollouts.prompt_ids.shape[0], width + int(per_row.max()))

    def filled(prompt: Tensor, tokens: Tensor, default: int) -> Tensor:
        full = torch.full(shape, default, device=device)
        full[:, :width] = prompt
        full[row, column] = tokens
        return full

    prompt_length = rollouts.prompt_mask.sum(dim=1)  # [B]
    return Tree(
        ids=filled(rollouts.prompt_ids, rollouts.completion_ids[completion, token], 0),
        branches=filled(torch.where(rollouts.prompt_mask, PROMPT, PADDING), completion, PADDING),
        position_ids=filled(positions(rollouts.prompt_mask), prompt_length[row] + token, 0),
        before=(row, torch.where(token == 0, width - 1, column - 1)),
    )


def attention_mask(branches: Tensor, model: PreTrainedModel) -> Tensor:
    """Mask in which a position sees earlier ones of the prompt and of its branch, and itself. -> [B, 1, S, S]"""
    size = branches.shape[1]
    query, key = branches.unsqueeze(2), branches.unsqueeze(1)  # [B, S, 1], [B, 1, S]
    causal = torch.ones(size, size, dtype=torch.bool, device=branches.device).tril()
    seen = causal & (key != PADDING) & ((key == PROMPT) | (key == query))
    seen |= torch.eye(size, dtype=torch.bool, device=branches.device)  # padding attends to itself
    mask = seen.unsqueeze(1)
    if model.config._attn_implementation == "sdpa":
        weight: Any = model.get_input_embeddings().weight
        return additive(mask, compute_dtype(weight))
    dtype = model.dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
