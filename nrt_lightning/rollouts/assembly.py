"""Assembly of completions from sampled token ids. Texts are never tokenized again."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.rollouts.engine import Generations
from nrt_lightning.structures import Prompts, Rollouts, Segments


def assemble(prompts: Prompts, generations: Generations, marker_id: int) -> Rollouts:
    """Build the completion trace + marker + answer of every generation.

    A stop token ends the trace and is not part of it. If it is the marker, the policy emitted the marker; otherwise
    (end token or length limit) the marker is forced.

    Args:
        prompts: B prompts with their answers.
        generations: N = B * K traces, with the rows of a group adjacent.
        marker_id: token id of the marker.

    Returns:
        Rollouts with completions [N, C].
    """
    count, device = len(prompts), prompts.prompt_ids.device
    group_size = len(generations) // max(count, 1)
    group_ids = torch.arange(count, device=device).repeat_interleave(group_size)  # [N]
    sampled_length = generations.token_mask.sum(dim=1)  # [N]
    trace_length = sampled_length - generations.stopped.long()  # [N]
    answer_length = prompts.answer_mask.sum(dim=1)[group_ids]  # [N]
    column = torch.arange(int((trace_length + 1 + answer_length).max()), device=device)  # [C]
    past = column - trace_length.unsqueeze(1)  # [N, C] 0 at the marker, 1 at the first answer token
    segments = Segments(
        trace_mask=past < 0,
        marker_mask=past == 0,
        answer_mask=(past > 0) & (past <= answer_length.unsqueeze(1)),
        marker_emitted=generations.stopped & (last_token(generations) == marker_id),
    )
    ids = torch.where(segments.trace_mask, pick(generations.token_ids, column.expand_as(past)), 0)
    ids = torch.where(segments.marker_mask, marker_id, ids)
    ids = torch.where(segments.answer_mask, pick(prompts.answer_ids[group_ids], past - 1), ids)
    sampling_logprobs = None
    if generations.logprobs is not None:
        sampled = segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))
        sampling_logprobs = pick(generations.logprobs, column.expand_as(past)) * sampled
    return Rollouts(
        prompt_ids=prompts.prompt_ids,
        prompt_mask=prompts.prompt_mask,
        answer_ids=prompts.answer_ids,
        answer_mask=prompts.answer_mask,
        completion_ids=ids,
        segments=segments,
        group_ids=group_ids,
        truncated=~generations.stopped,
        marker_id=marker_id,
        sampling_logprobs=sampling_logprobs,
        weights_version=generations.weights_version,
    )


def direct_answers(prompts: Prompts, marker_id: int) -> Rollouts:
    """Build completions of the answer alone, without trace and marker, for supervised fine-tuning."""
    none = torch.zeros_like(prompts.answer_mask)  # [B, T]
    flags = none.new_zeros(len(prompts))  # [B]
    return Rollouts(
        prompt_ids=prompts.prompt_ids,
        prompt_mask=prompts.prompt_mask,
        answer_ids=prompts.answer_ids,
        answer_mask=prompts.answer_mask,
        completion_ids=prompts.answer_ids,
        segments=Segments(none, none, prompts.answer_mask, marker_emitted=flags),
        group_ids=torch.arange(len(prompts), device=none.device),
        truncated=flags,
        marker_id=marker_id,
    )


def last_token(generations: Generations) -> Tensor:
    """The last token of every row, -1 for empty rows. [N]"""
    last = generations.token_mask.sum(dim=1, keepdim=True) - 1  # [N, 1]
    return torch.where(last >= 0, pick(generations.token_ids, last), -1).squeeze(1)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """`values` [N, W] at the columns `index` [N, C], clamped to the valid range."""
    if values.shape[1] == 0:
        return values.new_zeros(index.shape)
    return values.gather(1, index.clamp(0, values.shape[1] - 1))
