"""Evaluation on questions with known answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.functional import pack_segment
from nrt_lightning.metrics import ReasoningMetrics
from nrt_lightning.models import Policy
from nrt_lightning.models.policy.texts import decode_answers
from nrt_lightning.rollouts import Generations, RolloutEngine, assemble, direct_answers, write_answers
from nrt_lightning.rollouts.answering import answer_limits, within, write_directly
from nrt_lightning.signals import RolloutText
from nrt_lightning.structures import Prompts, Sampling


@dataclass
class Evaluation:
    """What a policy wrote for B questions, and its scores."""

    texts: list[RolloutText]  # B of them
    outcomes: dict[str, Tensor]  # by name of `ReasoningMetrics`, [B] each
    checked: dict[str, Tensor]  # the same, defined for rows that check pieces of their answer only
    logprobs: Tensor  # [B, T] of the reference answers, after the policy's traces if it writes traces
    baseline_logprobs: Tensor | None = None  # [B, T] of the reference answers after the empty trace

    def add_to(self, metrics: ReasoningMetrics, prompts: Prompts) -> None:
        """Add the outcomes of these questions to metrics."""
        metrics.update(counted=prompts.counted, **self.outcomes)
        metrics.update(counted=with_checks(prompts), **self.checked)


def evaluate(
    policy: Policy, engine: RolloutEngine, prompts: Prompts, sampling: Sampling, max_answer_tokens: int = 0
) -> Evaluation:
    """Decode greedily with and without a trace, and compare with the reference answers.

    An answer is an exact match if it equals the reference answer and ended by itself, with an end token. A row is
    decoded to its own `answer_limits`, so that the results do not depend on the rows of its batch.

    Args:
        policy: in eval mode, without gradient.
        engine: decodes.
        prompts: B questions with their reference answers.
        sampling: limit of traces. Temperature and group size are not used.
        max_answer_tokens: limit of the answers in `Evaluation.texts`, where it is above a row's own. Outcomes are
            those under the row's own limit.
    """
    greedy = dataclasses.replace(sampling, temperature=0.0)
    width, limits = prompts.answer_ids.shape[1], answer_limits(prompts)  # T, [B]
    longest = limits.clamp(min=max_answer_tokens)
    written = write_answers(policy, engine, prompts, greedy, int(longest.max()))
    direct = write_answers(policy, engine, prompts, greedy, int(limits.max()), thinking=False)
    rollouts = assemble(prompts, written.traces, policy.markup)
    scores = policy.score(rollouts, baseline=True)
    assert scores.baseline_logprobs is not None
    logprobs = pack_segment(scores.logprobs, rollouts.segments.answer_mask, width)  # [B, T]
    answers, emitted = within(written.answers, limits), written.marker_emitted
    right, held = matches(policy, prompts, answers), checked_matches(policy, prompts, answers)  # [B]
    outcomes = {
        "exact_match": right & emitted,
        "exact_match_forced": right,
        "exact_match_without_trace": matches(policy, prompts, within(direct.answers, limits)),
        "confidence": logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp(),
        "confidence_without_trace": scores.baseline_logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp(),
        "marker_rate": emitted,
        "trace_tokens": rollouts.segments.trace_mask.sum(dim=1),
    }
    checked = {"checked_match": held & emitted, "checked_match_forced": held}
    texts = texts_of(policy, prompts, written.trace_texts, emitted.tolist(), within(written.answers, longest))
    return Evaluation(texts, outcomes, checked, logprobs, scores.baseline_logprobs)


def evaluate_direct_answers(
    policy: Policy, engine: RolloutEngine, prompts: Prompts, max_answer_tokens: int = 0
) -> Evaluation:
    """Decode greedily right after the question, without trace and marker, and compare with the reference answers.

    Arguments as for `evaluate`.
    """
    limits = answer_limits(prompts)  # [B]
    longest = limits.clamp(min=max_answer_tokens)
    written = write_directly(policy, engine, prompts, int(longest.max()))
    logprobs = policy.score(direct_answers(prompts, policy.markup)).logprobs  # [B, T]
    answers = within(written, limits)
    right, held = matches(policy, prompts, answers), checked_matches(policy, prompts, answers)  # [B]
    confidence = logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp()
    outcomes = {"exact_match": right, "exact_match_forced": right, "confidence": confidence}
    checked = {"checked_match": held, "checked_match_forced": held}
    # Signals read these answers as those after an emitted marker: no marker was forced.
    texts = texts_of(policy, prompts, [""] * len(prompts), [True] * len(prompts), within(written, longest))
    return Evaluation(texts, outcomes, checked, logprobs)


def texts_of(
    policy: Policy, prompts: Prompts, traces: list[str], emitted: list[bool], answers: Generations
) -> list[RolloutText]:
    """One `RolloutText` for each question."""
    references = decode_answers(policy, prompts.answer_ids, prompts.answer_mask)
    written = decode_answers(policy, answers.token_ids, answers.token_mask)
    ended = answers.stopped.tolist()
    columns = zip(prompts.rows, references, traces, emitted, written, ended, strict=True)
    return [RolloutText(row.question, *fields, row) for row, *fields in columns]  # type: ignore[call-arg]


def matches(policy: Policy, prompts: Prompts, answers: Generations) -> Tensor:
    """True where an answer ended by itself and equals the reference answer up to surrounding whitespace. [B]"""
    references = decode_answers(policy, prompts.answer_ids, prompts.answer_mask)
    texts = decode_answers(policy, answers.token_ids, answers.token_mask)
    same = [text == reference for text, reference in zip(texts, references, strict=True)]
    return torch.tensor(same, device=prompts.prompt_ids.device) & answers.stopped


def right_answers(policy: Policy, prompts: Prompts, answers: Generations) -> Tensor:
    """True where an answer holds the pieces that its row checks or, without such pieces, is an exact match. [B]"""
    some = torch.tensor([bool(row.checks) for row in prompts.rows], device=prompts.prompt_ids.device)
    return torch.where(some, checked_matches(policy, prompts, answers), matches(policy, prompts, answers))


def with_checks(prompts: Prompts) -> Tensor:
    """True for counted rows that check pieces of their answer. [B]"""
    some = torch.tensor([bool(row.checks) for row in prompts.rows], device=prompts.prompt_ids.device)
    return some if prompts.counted is None else some & prompts.counted


def checked_matches(policy: Policy, prompts: Prompts, answers: Generations) -> Tensor:
    """True where an answer holds all pieces that its row checks. [B]"""
    texts = decode_answers(policy, answers.token_ids, answers.token_mask)
    held = [holds(text, row.checks) for text, row in zip(texts, prompts.rows, strict=True)]
    return torch.tensor(held, device=prompts.prompt_ids.device)


def holds(text: str, pieces: Sequence[str]) -> bool:
    """True if a text holds the pieces one after another.

    >>> holds("e is 2, so it is b 2.", ("e is 2", "b 2")), holds("b 2, e is 2.", ("e is 2", "b 2"))
    (True, False)
    """
    start = 0
    for piece in pieces:
        index = text.find(piece, start)
        if index < 0:
            return False
        start = index + len(piece)
    return True
