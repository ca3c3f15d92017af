"""Answers sampled by the policy after its traces, for signals or for training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from nrt_lightning.rollouts.answering import after_marker
from nrt_lightning.rollouts.assembly import pick
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, RolloutEngine, names_of
from nrt_lightning.rollouts.sampled_tokens import generate
from nrt_lightning.structures import PolicyAnswers, Rollouts, Segments

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Prompts, Sampling


def write_policy_answers(
    policy: Policy, engine: RolloutEngine, prompts: Prompts, traces: Generations, sampling: Sampling, seed: int
) -> PolicyAnswers:
    """Sample one answer after each trace and its emitted or forced marker.

    Args:
        policy: the policy.
        engine: samples from it.
        prompts: B questions; their reference answers are not used.
        traces: N = B * K traces, with the rows of a group adjacent.
        sampling: length limit and temperature of the answers.
        seed: of the random draws.
    """
    per_prompt = len(traces) // max(len(prompts), 1)
    repeated = prompts.apply(lambda tensor: tensor.repeat_interleave(per_prompt, dim=0))
    ids, mask = after_marker(repeated, traces, policy.markup)  # [N, P + L + M]
    own = sampling.answer_temperature
    request = GenerationRequest(
        prompt_ids=ids,
        prompt_mask=mask,
        max_new_tokens=sampling.max_answer_tokens,
        stop_ids=policy.eos_ids,
        stop_text=policy.markup.end_text,
        temperature=sampling.temperature if own is None else own,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed,
        names=[f"{name}\n{trace}" for name in names_of(prompts) for trace in range(per_prompt)],
    )
    answers = generate(engine, policy, request)
    return PolicyAnswers(answers.token_ids, answers.token_mask, answers.stopped)


def respond(rollouts: Rollouts) -> Rollouts:
    """Build the policy's responses: trace + marker + sampled answer, which are trained as traces are.

    If the policy did not emit the marker, the response ends with the trace and the end token that ended it, if one did.

    Args:
        rollouts: N completions with sampled answers.
    """
    assert rollouts.policy_answers is not None
    own, segments = rollouts.policy_answers, rollouts.segments
    emitted = segments.marker_emitted.unsqueeze(1)  # [N, 1]
    trace_length = segments.trace_mask.sum(dim=1, keepdim=True)  # [N, 1]
    marker_length = segments.marker_mask.sum(dim=1, keepdim=True)  # [N, 1]
    answer_length = own.mask.sum(dim=1, keepdim=True)  # [N, 1]
    column = torch.arange(int((trace_length + marker_length + answer_length).max()), device=emitted.device)  # [C]
    past = column - trace_length  # [N, C] 0 at the first token of the marker
    behind = past - marker_length  # [N, C] 0 at the first token of the answer
    written = (behind >= 0) & (behind < answer_length) & emitted
    end_ids = torch.full_like(rollouts.group_ids, -1) if rollouts.end_ids is None else rollouts.end_ids  # [N]
    end = (past == 0) & (end_ids >= 0).unsqueeze(1)  # [N, C]
    ids = torch.where(behind < 0, pick(rollouts.completion_ids, column.expand_as(past)), 0)
    ids = torch.where(end, end_ids.unsqueeze(1), ids)
    return dataclasses.replace(
        rollouts,
        completion_ids=torch.where(written, pick(own.ids, behind), ids),
        segments=Segments(
            trace_mask=(past < 0) | written | end,
            marker_mask=(past >= 0) & (behind < 0) & emitted,
            answer_mask=torch.zeros_like(written),
            marker_emitted=segments.marker_emitted,
        ),
        sampling_logprobs=None,
        policy_answers=None,
        signal_values={},
    )
