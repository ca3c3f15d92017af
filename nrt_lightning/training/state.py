"""What a method remembers from step to step, and what of it a checkpoint holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nrt_lightning.strategies import Processes
from nrt_lightning.structures import LossOutput, Prompts
from nrt_lightning.training.method import Method


def observe(method: Method, batch: Prompts, values: Tensor, out: LossOutput, processes: Processes) -> None:
    """Show the rewards `[N]` and the loss of a micro-batch to the parts that adapt to them."""
    share = None if method.answer_conditioned is None else method.answer_conditioned.schedule
    if share is not None and share.reads_rewards:
        of = batch.sampled.conditioning
        own = values.isfinite() if of is None else values.isfinite() & ~of.drawn
        total = processes.mean(torch.stack([values.where(own, 0).sum(), own.sum().to(values.dtype)]))
        if total[1] > 0:
            share.observe(float(total[0] / total[1]))
    bonus = method.loss.entropy_bonus
    if bonus is not None and bonus.adapts:
        bonus.observe(float(processes.mean(out.metrics["entropy"])))


def after_step(method: Method, steps: int) -> None:
    """Update the parts that follow the optimizer's steps.

    Args:
        method: of the run.
        steps: optimizer steps so far, this one included.
    """
    method.reference.update(method.policy, steps)
    if method.loss.entropy_bonus is not None:
        method.loss.entropy_bonus.step()


def state_of(method: Method) -> dict[str, Any]:
    """The state of the method's parts, for a checkpoint."""
    bonus = method.loss.entropy_bonus
    return {
        "filters": [(filter_.name, filter_.state_dict()) for filter_ in method.filters],
        "reference": method.reference.state_dict(),
        "share": {} if method.answer_conditioned is None else method.answer_conditioned.schedule.state_dict(),
        "entropy_bonus": {} if bonus is None else bonus.state_dict(),
    }


def restore(method: Method, stored: dict[str, Any]) -> None:
    """Restore what `state_of` returned; parts that are new start anew."""
    method.reference.load_state_dict(stored.get("reference", {}))
    for filter_, (name, state) in zip(method.filters, stored.get("filters", []), strict=False):
        if filter_.name == name:
            filter_.load_state_dict(state)
    if method.answer_conditioned is not None:
        method.answer_conditioned.schedule.load_state_dict(stored.get("share", {}))
    if method.loss.entropy_bonus is not None:
        method.loss.entropy_bonus.load_state_dict(stored.get("entropy_bonus", {}))
