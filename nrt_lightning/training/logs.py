"""Scalars of a training step, to log."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nrt_lightning.metrics import Mean, group_metrics, loss_metrics, rollout_metrics, signal_metrics
from nrt_lightning.metrics.scalars import Scalar
from nrt_lightning.structures import Prompts
from nrt_lightning.training.conditioning import conditioning_metrics
from nrt_lightning.training.method import Method
from nrt_lightning.training.micro_batches import Step

Scalars = dict[str, Scalar]


def training_scalars(method: Method, batch: Prompts, step: Step) -> tuple[Scalars, Scalars]:
    """Rewards, signals and losses of a batch, to log under `train/`, and looks of its traces, under `rollout/`."""
    rollouts, reward = batch.sampled, step.credit.reward
    scalars = group_metrics(reward.value, reward.baseline, step.credit.advantages, rollouts.group_ids)
    scalars |= signal_metrics(reward.signals) | loss_metrics(step.out)
    if method.signals is None:
        scalars[f"reward_{method.aggregator.name}"] = scalars["reward"]
    if batch.responses is not None:  # they have no answer tokens
        scalars.pop("answer_nll", None)
        if rollouts.old_scores is not None:
            scalars["answer_nll"] = Mean.of(-rollouts.old_scores.logprobs, rollouts.segments.answer_mask)
    settings = method.answer_conditioned
    if settings is not None:  # also at a share of 0, since a name that is missing keeps its last value
        scalars |= conditioning_metrics(rollouts.conditioning, reward.value, settings.leak_guard.limit)
        if settings.correction is not None:
            scalars.setdefault("importance_mean", Mean(torch.ones((), device=reward.value.device)))
    if rollouts.steps is not None:
        scalars["steps"] = Mean.of(rollouts.steps.mask.sum(dim=1))
    width = rollouts.completion_ids.shape[1]  # a response begins with the same trace, narrower or wider
    traces = rollout_metrics(rollouts, F.pad(step.scores.entropy.detach(), (0, width))[:, :width])
    return scalars, traces
