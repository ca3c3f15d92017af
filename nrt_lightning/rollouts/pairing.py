"""Traces after the prompts of other groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional.padding import pad_rows
from nrt_lightning.structures import Rollouts, Segments


@dataclass
class PromptAndTrace:
    """The ids of a prompt and of one of its traces, without padding."""

    prompt_ids: Tensor  # [p]
    trace_ids: Tensor  # [l]


def first_traces(rollouts: Rollouts) -> list[PromptAndTrace]:
    """Every prompt with the first trace of its group."""
    firsts = torch.searchsorted(
        rollouts.group_ids, torch.arange(len(rollouts.prompt_ids), device=rollouts.group_ids.device)
    )
    return [
        PromptAndTrace(
            rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]],
            rollouts.completion_ids[row][rollouts.segments.trace_mask[row]],
        )
        for prompt, row in enumerate(firsts.tolist())
    ]


def all_pairs(pairs: list[PromptAndTrace], marker_ids: tuple[int, ...]) -> Rollouts:
    """Every trace after every prompt: row `i * M + j` is trace j after prompt i. [M * M, C]

    The completions are traces only, without marker and answer.
    """
    count, device = len(pairs), pairs[0].prompt_ids.device
    prompts, prompt_mask = pad_rows([pair.prompt_ids for pair in pairs], left=True)  # [M, P]
    traces, trace_mask = pad_rows([pair.trace_ids for pair in pairs], min_width=1)  # [M, C]
    none = torch.zeros_like(trace_mask).repeat(count, 1)  # [M * M, C]
    flags = none.new_zeros(count * count)
    return Rollouts(
        prompt_ids=prompts,
        prompt_mask=prompt_mask,
        answer_ids=prompts[:, :0],
        answer_mask=prompt_mask[:, :0],
        completion_ids=traces.repeat(count, 1),
        segments=Segments(trace_mask.repeat(count, 1), none, none, marker_emitted=flags),
        group_ids=torch.arange(count, device=device).repeat_interleave(count),
        truncated=flags,
        marker_ids=marker_ids,
    )
