"""Measurements of the collapse detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nrt_lightning.metrics import prompt_dependence, rollout_metrics
from nrt_lightning.rollouts import PromptAndTrace, all_pairs

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Rollouts


@dataclass
class Vitals:
    """The state of a policy that writes traces, in means over rollouts."""

    step: int  # optimizer steps so far
    gain: float  # log-prob of an answer token after a trace, minus that after the empty trace, nats
    answer_logprob: float  # log-prob of an answer token after a trace, nats
    dependence: float  # of traces on their prompt, 0 to 1
    trace_tokens: float  # length
    trace_entropy: float  # nats per token
    distinct: float  # 1 if all traces of a group differ, 0 if all are the same
    marker_rate: float  # fraction of traces that end with an emitted marker
    finished_rate: float = 1.0  # fraction of trained responses that the policy ended itself, trace and answer
    answer_variety: float = 1.0  # different answers to the recent prompts, by different reference answers, at most 1


def measure_vitals(policy: Policy, rollouts: Rollouts, recent: list[PromptAndTrace], step: int) -> Vitals:
    """Score rollouts, and every recent trace after every recent prompt.

    Args:
        policy: the policy to measure.
        rollouts: rollouts of some prompts, sampled recently.
        recent: at least two prompts, each with a trace.
        step: optimizer steps so far.
    """
    with policy.evaluating():
        scores = policy.score(rollouts, baseline=True)
        pairs = policy.score(all_pairs(recent, policy.markup.marker_ids))
        after_each = pairs.logprobs.sum(dim=1).view(len(recent), len(recent)).T  # [trace, prompt]
    metrics = {name: float(scalar.value) for name, scalar in rollout_metrics(rollouts, scores.entropy).items()}
    answers = rollouts.segments.answer_mask  # [N, C]
    length = answers.sum(dim=1).clamp(min=1)  # [N]
    with_trace = scores.logprobs.where(answers, 0).sum(dim=1) / length  # [N]
    assert scores.baseline_logprobs is not None
    without = scores.baseline_logprobs.where(rollouts.answer_mask, 0).sum(dim=1)[rollouts.group_ids] / length  # [N]
    indices = torch.arange(len(recent), device=after_each.device)  # [M] prompt of each trace
    return Vitals(
        step=step,
        gain=float((with_trace - without).mean()),
        answer_logprob=float(with_trace.mean()),
        # The estimate is below 0 if the policy has changed much since it wrote the traces.
        dependence=max(0.0, float(prompt_dependence(after_each, indices).fraction)),
        trace_tokens=metrics["trace_tokens"],
        trace_entropy=metrics["trace_entropy"],
        distinct=distinctness(metrics["unique_traces"], len(rollouts) // len(rollouts.prompt_ids)),
        marker_rate=metrics["marker_rate"],
    )


def distinctness(unique: float, group_size: int) -> float:
    """Rescale the fraction of unique traces in a group to 0 (all the same) to 1 (all different).

    >>> distinctness(0.125, 8), distinctness(1.0, 8), distinctness(1.0, 1)
    (0.0, 1.0, 1.0)
    """
    return 1.0 if group_size == 1 else (unique * group_size - 1) / (group_size - 1)
