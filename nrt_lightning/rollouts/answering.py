"""Sampling of traces and answers for evaluation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nrt_lightning.models.policy.texts import decode, decode_answers
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, RolloutEngine, names_of, trace_stops
from nrt_lightning.rollouts.sampled_tokens import generate

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Markup, Prompts, Sampling

ROOM = 2  # tokens that an answer may have more than its reference answer: white space before and after it


@dataclass
class Written:
    """Sampled traces and answers, one of each per prompt."""

    traces: Generations  # [B, L] with the stop if there is one
    answers: Generations  # [B, T'] after the emitted or forced marker
    marker_emitted: Tensor  # [B]
    answer_texts: list[str]  # [B]
    trace_texts: list[str]  # [B]


def write_answers(
    policy: Policy,
    engine: RolloutEngine,
    prompts: Prompts,
    sampling: Sampling,
    max_answer_tokens: int,
    seed: int = 0,
    *,
    thinking: bool = True,
) -> Written:
    """Sample one trace and one answer for every prompt.

    Args:
        policy: the policy.
        engine: samples from it.
        prompts: the questions; their reference answers are not used.
        sampling: temperature and the length limit of traces; `group_size` and `suppress_eos` are ignored, because a
            deployed policy may end early.
        max_answer_tokens: length limit of answers.
        seed: of the random draws.
        thinking: False forces the marker at once, for an answer without a trace.
    """
    request = GenerationRequest(
        prompt_ids=prompts.prompt_ids,
        prompt_mask=prompts.prompt_mask,
        max_new_tokens=sampling.max_trace_tokens if thinking else 0,
        stop_ids=trace_stops(policy),
        stop_text=policy.markup.marker_text,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed,
        names=names_of(prompts),
    )
    traces = generate(engine, policy, request) if thinking else nothing(prompts)
    request.prompt_ids, request.prompt_mask = after_marker(prompts, traces, policy.markup)
    request.max_new_tokens = max_answer_tokens
    request.stop_ids, request.stop_text = policy.eos_ids, policy.markup.end_text
    request.seed = seed + 1
    answers = generate(engine, policy, request)
    return Written(
        traces=traces,
        answers=answers,
        marker_emitted=traces.emitted(policy.markup),
        answer_texts=decode_answers(policy, answers.token_ids, answers.token_mask),
        trace_texts=decode(policy, traces.token_ids, trace_mask(traces)),
    )


def write_directly(
    policy: Policy,
    engine: RolloutEngine,
    prompts: Prompts,
    max_answer_tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Generations:
    """Answers right after the prompt, without trace and marker.

    Arguments as for `write_answers`; without `sampling` they are greedy.
    """
    request = GenerationRequest(
        prompts.prompt_ids, prompts.prompt_mask, max_answer_tokens, stop_ids=policy.eos_ids, temperature=0.0,
        stop_text=policy.markup.end_text,
    )  # fmt: skip
    if sampling is not None:
        request.temperature, request.top_p, request.top_k = sampling.temperature, sampling.top_p, sampling.top_k
        request.seed, request.names = seed, names_of(prompts)
    return generate(engine, policy, request)


def answer_limits(prompts: Prompts) -> Tensor:
    """Length up to which an answer can be the reference answer, by that answer's length alone. [B]"""
    return prompts.answer_mask.sum(dim=1) + ROOM


def within(answers: Generations, limits: Tensor) -> Generations:
    """Cut each answer at its own limit, `limits` [B]. An answer that is cut counts as not ended.

    A batch is decoded up to its largest limit. The answer of a row must not depend on the other rows of the batch.
    """
    column = torch.arange(answers.token_mask.shape[1], device=limits.device)
    return dataclasses.replace(
        answers,
        token_mask=answers.token_mask & (column < limits.unsqueeze(1)),
        stopped=answers.stopped & (answers.token_mask.sum(dim=1) <= limits),
    )


def trace_mask(traces: Generations) -> Tensor:
    """The tokens before the stop. [N, L]"""
    column = torch.arange(traces.token_mask.shape[1], device=traces.token_mask.device)
    return column < traces.lengths.unsqueeze(1)


def nothing(prompts: Prompts) -> Generations:
    """Empty traces, one per prompt."""
    ids = prompts.prompt_ids[:, :0]  # [B, 0]
    return Generations(ids, ids.bool(), stopped=torch.zeros(len(prompts), dtype=torch.bool, device=ids.device))


def after_marker(prompts: Prompts, traces: Generations, markup: Markup) -> tuple[Tensor, Tensor]:
    """Prompt + trace + marker, left-padded: ids and mask, both [B, P + L + M].

    An emitted marker keeps its sampled tokens.
    """
    emitted = traces.emitted(markup).unsqueeze(1)  # [B, 1]
    kept = trace_mask(traces) | (traces.token_mask & emitted)  # [B, L]
    marker = torch.tensor([markup.marker_ids], device=emitted.device).expand(len(emitted), -1)  # [B, M]
    ids = torch.cat([prompts.prompt_ids, traces.token_ids, marker], dim=1)  # [B, P + L + M]
    mask = torch.cat([prompts.prompt_mask, kept, (~emitted).expand_as(marker)], dim=1)
    order = mask.long().argsort(dim=1, stable=True)  # moves the padding to the left
    width = int(mask.sum(dim=1).max())  # columns that some row needs
    return ids.gather(1, order)[:, -width:], mask.gather(1, order)[:, -width:]
