"""Rollouts of a window: traces are sampled, assembled with the answers, and their signals are measured.

Training, `RewardCorrectness`, `probe` and preflight all sample here.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.sharding.memory import peak_memory, reset_peak_memory
from nrt_lightning.rollouts import Generations, Progress, assemble, respond, trace_request, write_policy_answers
from nrt_lightning.rollouts.sampled_tokens import generate
from nrt_lightning.signals import RolloutEvidence
from nrt_lightning.structures import Prompts
from nrt_lightning.training.conditioning import guard, mixed, score_with_answers
from nrt_lightning.training.method import Method


@dataclass
class SampledWindow:
    """The micro-batches of a window with their rollouts, and what sampling them took."""

    micro_batches: list[Prompts]
    traces: Generations | None = None  # N of them, with the stop token where there is one
    tokens: int = 0  # of the traces
    seconds: float = 0.0
    peak_memory: int = 0  # bytes


def sample_window(
    method: Method,
    prompts: Prompts,
    seed: int,
    policy: Policy | None = None,
    progress: Progress | None = None,
    share: float = 0.0,
) -> SampledWindow:
    """Sample the traces of a window and assemble its micro-batches. Signals are not measured yet.

    Args:
        method: with sampling settings and engine.
        prompts: of all micro-batches.
        seed: of the draws.
        policy: that is sampled from; None for the method's own.
        progress: called as tokens are written.
        share: of each group's traces that see the answer, for a method that is `answer_conditioned`.
    """
    policy, engine = policy or method.policy, method.engine
    request = trace_request(policy, prompts, method.sampling, seed)
    request.logprobs = method.needs_sampling_logprobs
    settings, mixture = method.answer_conditioned, None
    if settings is not None and share > 0:
        mixture = mixed(settings, policy, prompts, request, share)
        request = mixture.request
    started, answers = time.perf_counter(), None
    reset_peak_memory(policy.device)
    # An engine with its own weights reads none here, and processes must not communicate in a thread.
    with nullcontext() if engine.own_weights else policy.gathered():
        traces = generate(engine, policy, request, progress)
        if mixture is not None and settings is not None:
            traces = traces.take(mixture.order)
            guard(settings, policy, prompts, traces, mixture.conditioning)
        if method.needs_policy_answers:
            answers = write_policy_answers(policy, engine, prompts, traces, method.sampling, seed + 1)
    peak, seconds = peak_memory(policy.device), time.perf_counter() - started
    window, last = prompts.micro_batches(), 0
    for batch in window:
        first, last = last, last + len(batch) * method.sampling.group_size
        batch.rollouts = assemble(batch, traces.select(first, last), policy.markup)
        batch.rollouts.temperature = method.sampling.temperature or 1.0  # greedy traces have no distribution
        if answers is not None:
            part = slice(first, last)
            batch.rollouts.policy_answers = answers.apply(lambda tensor, part=part: tensor[part])  # type: ignore[misc]
        if mixture is not None:
            rows, size = torch.arange(first, last, device=policy.device), method.sampling.group_size
            batch.rollouts.conditioning = mixture.conditioning.select(rows[::size] // size, rows)
        if method.train_response:
            batch.responses = respond(batch.rollouts)
    return SampledWindow(window, traces, int(traces.token_mask.sum()), seconds, peak)


def measure_signals(method: Method, window: list[Prompts], policy: Policy | None = None) -> None:
    """Measure the signals that are measured right after sampling.

    Args:
        method: with the signals.
        window: micro-batches with their rollouts, to which the values are added.
        policy: that wrote them; None for the method's own.
    """
    policy = policy or method.policy
    if method.signals is None and method.step_credit is None:
        return
    with policy.evaluating():
        for batch in window:
            if method.signals is not None:
                batch.sampled.signal_values = method.signals.measure(RolloutEvidence(policy, batch))
            if method.step_credit is not None:
                batch.sampled.steps = method.step_credit.measure(policy, batch.sampled)


def score_window(method: Method, window: list[Prompts], *, steps: bool) -> None:
    """Store the old policy's scores in the rollouts, as far as something reads them before the training step.

    Args:
        method: with the policy before the window's first optimizer step.
        window: micro-batches with their rollouts.
        steps: the optimizer steps within the window, so the training forward's log-probs are not the old policy's.
    """
    score_with_policy(method, window, method.policy, steps=steps)
    score_with_other_models(method, window, steps=steps)


def score_with_policy(method: Method, window: list[Prompts], policy: Policy, *, steps: bool) -> None:
    """`score_window`, without the reference and without baselines of other models."""
    trained_first = needs_trained_first(method, steps=steps)
    with policy.evaluating():
        for batch in window:
            if batch.sampled.conditioning is not None and method.needs_conditioned_logprobs:
                score_with_answers(policy, batch.sampled)
            answers_first = method.needs_answer_logprobs and (method.needs_window or batch.responses is not None)
            if answers_first or (trained_first and batch.responses is None):
                batch.sampled.old_scores = method.score_rollouts(batch.sampled, policy, answers=True)
            if trained_first and batch.responses is not None:
                batch.responses.old_scores = method.score_rollouts(batch.responses, policy, answers=False)


def score_with_other_models(method: Method, window: list[Prompts], *, steps: bool) -> None:
    """`score_window`, by the reference and by the baseline's model alone."""
    trained_first = needs_trained_first(method, steps=steps)
    with method.policy.evaluating():
        for batch in window:
            rollouts, trained = batch.sampled, batch.trained
            if rollouts.old_scores is not None:
                rollouts.old_scores = method.add_baseline(rollouts, rollouts.old_scores)
            if trained_first and trained.old_scores is not None:
                trained.old_scores = method.add_reference(trained, trained.old_scores)


def needs_trained_first(method: Method, *, steps: bool) -> bool:
    """True if the log-probs of what is trained are read before the training step."""
    return steps or (method.needs_window and method.kl_penalty is not None)
