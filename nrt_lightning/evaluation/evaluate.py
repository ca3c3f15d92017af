"""What a policy makes of questions whose answers are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import pack_segment
from nrt_lightning.metrics import ReasoningMetrics
from nrt_lightning.models import Policy
from nrt_lightning.rollouts import RolloutEngine, assemble, write_answers
from nrt_lightning.structures import Prompts, Sampling


@dataclass
class Evaluation:
    """What a policy makes of B questions."""

    outcomes: dict[str, Tensor]  # by name of `ReasoningMetrics`, [B] each
    checked: dict[str, Tensor]  # the same where a row checks pieces of its answer; means nothing for other rows
    logprobs: Tensor  # [B, T] of the reference answers' tokens after the policy's own traces
    baseline_logprobs: Tensor  # [B, T] of the same after the empty trace

    def add_to(self, metrics: ReasoningMetrics, prompts: Prompts) -> None:
        """Add everything to the metrics of these questions."""
        metrics.update(counted=prompts.counted, **self.outcomes)
        metrics.update(counted=with_checks(prompts), **self.checked)


def evaluate(policy: Policy, engine: RolloutEngine, prompts: Prompts, sampling: Sampling) -> Evaluation:
    """Greedy answers with and without a trace held against the reference answers, and the confidence in these.

    Args:
        policy: in eval mode, without gradient.
        engine: what decodes.
        prompts: B questions with their reference answers.
        sampling: lengths of traces; temperature and group size are not used.
    """
    greedy = dataclasses.replace(sampling, temperature=0.0)
    limit = prompts.answer_ids.shape[1]  # a longer answer cannot be the reference answer
    written = write_answers(policy, engine, prompts, greedy, limit)
    direct = write_answers(policy, engine, prompts, greedy, limit, thinking=False)
    rollouts = assemble(prompts, written.traces, policy.marker_id)
    scores = policy.score(rollouts, baseline=True)
    assert scores.baseline_logprobs is not None
    logprobs = pack_segment(scores.logprobs, rollouts.segments.answer_mask, limit)  # [B, T]
    right = matches(policy, prompts, written.answer_texts)  # [B]
    held = checked_matches(prompts, written.answer_texts)  # [B]
    outcomes = {
        "exact_match": right & written.marker_emitted,
        "exact_match_forced": right,
        "exact_match_without_trace": matches(policy, prompts, direct.answer_texts),
        "confidence": logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp(),
        "confidence_without_trace": scores.baseline_logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp(),
        "marker_rate": written.marker_emitted,
        "trace_tokens": rollouts.segments.trace_mask.sum(dim=1),
    }
    checked = {"checked_match": held & written.marker_emitted, "checked_match_forced": held}
    return Evaluation(outcomes, checked, logprobs, scores.baseline_logprobs)


def matches(policy: Policy, prompts: Prompts, texts: list[str]) -> Tensor:
    """Whether each text is the reference answer, but for space around it. [B]"""
    rows = [ids[mask].tolist() for ids, mask in zip(prompts.answer_ids, prompts.answer_mask, strict=True)]
    answers = policy.tokenizer.batch_decode(rows, skip_special_tokens=True)
    same = [text.strip() == answer.strip() for text, answer in zip(texts, answers, strict=True)]
    return torch.tensor(same, device=prompts.prompt_ids.device)


def right_answers(policy: Policy, prompts: Prompts, texts: list[str]) -> Tensor:
    """Whether each text holds the pieces that its row checks or, where it checks none, is the reference answer. [B]"""
    some = torch.tensor([bool(row.checks) for row in prompts.rows], device=prompts.prompt_ids.device)
    return torch.where(some, checked_matches(prompts, texts), matches(policy, prompts, texts))


def with_checks(prompts: Prompts) -> Tensor:
    """Whether each row counts and checks pieces of its answer. [B]"""
    some = torch.tensor([bool(row.checks) for row in prompts.rows], device=prompts.prompt_ids.device)
    return some if prompts.counted is None else some & prompts.counted


def checked_matches(prompts: Prompts, texts: list[str]) -> Tensor:
    """Whether each text holds all pieces that its row checks. [B]"""
    held = [holds(text, row.checks) for text, row in zip(texts, prompts.rows, strict=True)]
    return torch.tensor(held, device=prompts.prompt_ids.device)


def holds(text: str, pieces: Sequence[str]) -> bool:
    """Whether a text holds pieces one after another.

    >>> holds("e is 2, so it is b 2.", ("e is 2", "b 2")), holds("b 2, e is 2.", ("e is 2", "b 2"))
    (True, False)
    """
    at = 0
    for piece in pieces:
        place = text.find(piece, at)
        if place < 0:
            return False
        at = place + len(piece)
    return True
