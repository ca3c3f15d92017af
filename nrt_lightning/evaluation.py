"""What a policy makes of questions whose answers are known."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from nrt_lightning.models import Policy
from nrt_lightning.rollouts import RolloutEngine, assemble, write_answers
from nrt_lightning.structures import Prompts, Sampling


def outcomes(policy: Policy, engine: RolloutEngine, prompts: Prompts, sampling: Sampling) -> dict[str, Tensor]:
    """Greedy answers with and without a trace held against the reference answers, and the confidence in these.

    Args:
        policy: in eval mode, without gradient.
        engine: what decodes.
        prompts: B questions with their reference answers.
        sampling: lengths of traces; temperature and group size are not used.

    Returns:
        By name of `ReasoningMetrics`, [B] each.
    """
    greedy = dataclasses.replace(sampling, temperature=0.0)
    limit = prompts.answer_ids.shape[1]  # a longer answer cannot be the reference answer
    written = write_answers(policy, engine, prompts, greedy, limit)
    direct = write_answers(policy, engine, prompts, greedy, limit, thinking=False)
    rollouts = assemble(prompts, written.traces, policy.marker_id)
    scores = policy.score(rollouts, baseline=True)
    assert scores.baseline_logprobs is not None
    right = matches(policy, prompts, written.answer_texts)  # [B]
    return {
        "exact_match": right & written.marker_emitted,
        "exact_match_forced": right,
        "exact_match_without_trace": matches(policy, prompts, direct.answer_texts),
        "confidence": scores.logprobs.where(rollouts.segments.answer_mask, 0).sum(dim=1).exp(),
        "confidence_without_trace": scores.baseline_logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp(),
        "marker_rate": written.marker_emitted,
        "trace_tokens": rollouts.segments.trace_mask.sum(dim=1),
    }


def matches(policy: Policy, prompts: Prompts, texts: list[str]) -> Tensor:
    """Whether each text is the reference answer, but for space around it. [B]"""
    rows = [ids[mask].tolist() for ids, mask in zip(prompts.answer_ids, prompts.answer_mask, strict=True)]
    answers = policy.tokenizer.batch_decode(rows, skip_special_tokens=True)
    same = [text.strip() == answer.strip() for text, answer in zip(texts, answers, strict=True)]
    return torch.tensor(same, device=prompts.prompt_ids.device)
