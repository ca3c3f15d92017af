"""The micro-batches of a window, each with its share of what was sampled for all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nrt_lightning.rollouts import Generations, assemble, respond
from nrt_lightning.signals import RolloutEvidence
from nrt_lightning.structures import OwnAnswers, Prompts

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


def hand_out(
    prompts: Prompts, generations: Generations, marker_id: int, own: OwnAnswers | None = None
) -> list[Prompts]:
    """The micro-batches of a window, each with its share of prompts and their rollouts."""
    per_prompt, last = len(generations) // len(prompts), 0
    window = shares(prompts)
    for share in window:
        first, last = last, last + len(share) * per_prompt
        share.rollouts = assemble(share, generations.select(first, last), marker_id)
        if own is not None:
            share.rollouts.own_answers = OwnAnswers(own.ids[first:last], own.mask[first:last], own.ended[first:last])
    return window


def shares(prompts: Prompts) -> list[Prompts]:
    """The prompts of each micro-batch of a window."""
    size = math.ceil(len(prompts) / prompts.window.size)
    return [prompts.select(start, start + size) for start in range(0, len(prompts), size)]


def complete(pl_module: Any, prompts: Prompts) -> None:
    """Make responses of the rollouts, where those are trained."""
    assert prompts.rollouts is not None
    if getattr(pl_module, "train_response", False):
        prompts.rollouts = respond(prompts.rollouts)


def measure(pl_module: Any, prompts: Prompts, sampler: Policy) -> None:
    """Measure the signals that are measured right after sampling.

    Args:
        pl_module: whose signals.
        prompts: with their rollouts.
        sampler: the policy that wrote them.
    """
    assert prompts.rollouts is not None
    signals = getattr(pl_module, "signals", None)
    if signals is not None:
        with sampler.evaluating():
            prompts.rollouts.judged.measured = signals.measure(RolloutEvidence(sampler, prompts))
