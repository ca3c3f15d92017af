"""Assembly of completions from sampled token ids. Texts are never tokenized again."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.rollouts.engine import Generations
from nrt_lightning.rollouts.stop_text import Ending
from nrt_lightning.structures import Markup, Prompts, Rollouts, Segments


def assemble(prompts: Prompts, generations: Generations, markup: Markup) -> Rollouts:
    """Build the completion trace + marker + answer of every generation.

    A stop ends the trace and is not part of it. If it is the marker, the policy emitted the marker, and its tokens stay
    as they were sampled. Otherwise (end token or length limit) the marker is forced. An end token is kept apart, for
    `respond`. The marker is forced, too, where a token held the end of a text marker and more: that token and those of
    the marker before it are left out.

    Args:
        prompts: B prompts with their answers.
        generations: N = B * K traces, with the rows of a group adjacent.
        markup: with the marker.

    Returns:
        Rollouts with completions [N, C].
    """
    count, device = len(prompts), prompts.prompt_ids.device
    group_size = len(generations) // max(count, 1)
    group_ids = torch.arange(count, device=device).repeat_interleave(group_size)  # [N]
    marker = torch.tensor([markup.marker_ids], device=device)  # [1, M]
    emitted, trace_length = generations.emitted(markup), generations.lengths  # [N]
    marker_length = torch.where(emitted, generations.token_mask.sum(dim=1) - trace_length, marker.shape[1])  # [N]
    answer_length = prompts.answer_mask.sum(dim=1)[group_ids]  # [N]
    column = torch.arange(int((trace_length + marker_length + answer_length).max()), device=device)  # [C]
    past = column - trace_length.unsqueeze(1)  # [N, C] 0 at the marker's first token
    behind = past - marker_length.unsqueeze(1)  # [N, C] 0 at the answer's first token
    segments = Segments(
        trace_mask=past < 0,
        marker_mask=(past >= 0) & (behind < 0),
        answer_mask=(behind >= 0) & (behind < answer_length.unsqueeze(1)),
        marker_emitted=emitted,
    )
    sampled = segments.trace_mask | (segments.marker_mask & emitted.unsqueeze(1))
    ids = torch.where(sampled, pick(generations.token_ids, column.expand_as(past)), 0)
    ids = torch.where(segments.marker_mask & ~sampled, pick(marker.expand(len(past), -1), past), ids)
    ids = torch.where(segments.answer_mask, pick(prompts.answer_ids[group_ids], behind), ids)
    sampling_logprobs = None
    if generations.logprobs is not None:
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
        marker_ids=markup.marker_ids,
        sampling_logprobs=sampling_logprobs,
        weights_version=generations.weights_version,
        overrun=None if generations.ending is None else generations.ending == Ending.BEYOND,
        end_ids=generations.end_ids(markup),
    )


def direct_answers(prompts: Prompts, markup: Markup) -> Rollouts:
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
        marker_ids=markup.marker_ids,
    )


def pick(values: Tensor, index: Tensor) -> Tensor:
    """`values` [N, W] at the columns `index` [N, C], clamped to the valid range."""
    if values.shape[1] == 0:
        return values.new_zeros(index.shape)
    return values.gather(1, index.clamp(0, values.shape[1] - 1))
