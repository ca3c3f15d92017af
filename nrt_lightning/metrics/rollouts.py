"""Scalars of a batch of rollouts, to log."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional.groups import group_statistics
from nrt_lightning.metrics.scalars import Max, Mean, Scalar, Sum
from nrt_lightning.structures import LossOutput, Rollouts


def rollout_metrics(rollouts: Rollouts, entropy: Tensor | None = None) -> dict[str, Scalar]:
    """Lengths, endings and diversity of the traces.

    Args:
        rollouts: N completions.
        entropy: entropy of the distribution that each token was sampled from, in nats, [N, C].
    """
    segments = rollouts.segments
    lengths = segments.trace_mask.sum(dim=1).float()  # [N]
    metrics: dict[str, Scalar] = {
        "trace_tokens": Mean.of(lengths),
        "trace_tokens_max": Max(lengths.max()),
        "truncated_share": Mean.of(rollouts.truncated),
        "marker_rate": Mean.of(segments.marker_emitted),
        "unique_traces": Mean(unique_fraction(rollouts), len(rollouts)),
        "answer_tokens": Mean.of(segments.answer_mask.sum(dim=1)),
        "prompt_tokens": Mean.of(rollouts.prompt_mask.sum(dim=1)),
    }
    if rollouts.overrun is not None:  # a token reached beyond a marker that is text
        metrics["marker_overrun_share"] = Mean.of(rollouts.overrun)
    if entropy is not None:
        metrics["trace_entropy"] = Mean.of(entropy, segments.trace_mask)
    return metrics


def unique_fraction(rollouts: Rollouts) -> Tensor:
    """The number of distinct traces, counted within groups, divided by the number of traces."""
    trace = torch.where(rollouts.segments.trace_mask, rollouts.completion_ids, -1)  # [N, C]
    rows = torch.cat([rollouts.group_ids.unsqueeze(1), trace], dim=1)  # [N, 1 + C]
    return torch.tensor(rows.unique(dim=0).shape[0] / max(len(rollouts), 1), device=trace.device)


def group_metrics(
    values: Tensor, baseline_values: Tensor | None, advantages: Tensor, group_ids: Tensor
) -> dict[str, Scalar]:
    """Rewards and advantages of the groups. Rewards that are not finite are left out, as advantages leave them out.

    Args:
        values: the trace rewards, [N].
        baseline_values: the reward of the empty trace, repeated for its group, [N].
        advantages: [N].
        group_ids: [N].
    """
    finite = values.isfinite()  # [N]
    std = group_statistics(values, group_ids, finite).std  # [N]
    metrics: dict[str, Scalar] = {
        "reward": Mean.of(values, finite),
        "reward_group_std": Mean.of(std),
        "zero_variance_groups": Mean.of(std == 0),
        "advantage_mean": Mean.of(advantages),
        "advantage_abs": Mean.of(advantages.abs()),
    }
    if baseline_values is not None:
        gain = values - baseline_values
        metrics |= {"gain": Mean.of(gain, finite), "gain_positive_share": Mean.of(gain > 0, finite)}
    return metrics


def signal_metrics(signals: dict[str, Tensor]) -> dict[str, Scalar]:
    """The mean of each signal's finite values, and the number of rollouts for which it failed.

    Args:
        signals: values by name, [N] each; NaN where the signal failed.
    """
    metrics: dict[str, Scalar] = {}
    for name, values in signals.items():
        metrics[f"signal_{name}"] = Mean.of(values, values.isfinite())
        metrics[f"signal_{name}_failed"] = Sum(values.isnan().sum().float())
    return metrics


def loss_metrics(out: LossOutput) -> dict[str, Scalar]:
    """The loss, its terms and its metrics."""
    metrics: dict[str, Scalar] = {"loss": Mean(out.loss.detach())}
    metrics |= {f"loss_{name}": Mean(term) for name, term in out.terms.items()}
    for name, value in out.metrics.items():
        metrics[name] = Max(value) if name.endswith("_max") else Mean(value, out.counts.get(name, 1.0))
    return metrics
