"""What a look at the policy measures."""

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
    """The state of a policy that writes traces."""

    step: int  # optimizer steps done
    gain: float  # nats a trace adds to an answer token's log-prob over the empty trace, whatever the aggregation
    answer_logprob: float  # of an answer token after a trace, nats
    dependence: float  # of traces on their prompt, 0 to 1
    trace_tokens: float  # mean length
    trace_entropy: float  # nats a token
    distinct: float  # 1 where all traces of a group differ, 0 where all are the same
    marker_rate: float  # share of traces that end with the marker by themselves


def take_vitals(policy: Policy, rollouts: Rollouts, recent: list[PromptAndTrace], step: int) -> Vitals:
    """Score rollouts, and recent traces after each other's prompts.

    Args:
        policy: whose state is asked for.
        rollouts: of some prompts, sampled just now.
        recent: at least two prompts, each with a trace.
        step: optimizer steps done.
    """
    with policy.evaluating():
        scores = policy.score(rollouts, baseline=True)
        crosswise = all_pairs(recent, policy.marker_id)
        after_each = policy.score(crosswise).logprobs.sum(dim=1).view(len(recent), len(recent)).T  # [trace, prompt]
    looks = {name: float(scalar.value) for name, scalar in rollout_metrics(rollouts, scores.entropy).items()}
    answers = rollouts.segments.answer_mask  # [N, C]
    length = answers.sum(dim=1).clamp(min=1)  # [N]
    with_trace = scores.logprobs.where(answers, 0).sum(dim=1) / length  # [N]
    assert scores.baseline_logprobs is not None
    without = scores.baseline_logprobs.where(rollouts.answer_mask, 0).sum(dim=1)[rollouts.group_ids] / length  # [N]
    own = torch.arange(len(recent), device=after_each.device)
    return Vitals(
        step=step,
        gain=float((with_trace - without).mean()),
        answer_logprob=float(with_trace.mean()),
        # Below 0 where the policy has moved far from the one that wrote the traces.
        dependence=max(0.0, float(prompt_dependence(after_each, own).fraction)),
        trace_tokens=looks["trace_tokens"],
        trace_entropy=looks["trace_entropy"],
        distinct=distinctness(looks["unique_traces"], len(rollouts) // len(rollouts.prompt_ids)),
        marker_rate=looks["marker_rate"],
    )


def distinctness(unique_share: float, group_size: int) -> float:
    """The share of distinct traces, from 0 where a group's traces are all the same to 1.

    >>> distinctness(0.125, 8), distinctness(1.0, 8), distinctness(1.0, 1)
    (0.0, 1.0, 1.0)
    """
    return 1.0 if group_size == 1 else (unique_share * group_size - 1) / (group_size - 1)
