"""What a batch of rollouts looks like, as scalars to log."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional import masked_mean
from nrt_lightning.functional.groups import group_statistics
from nrt_lightning.structures import Rollouts


def rollout_metrics(rollouts: Rollouts, entropy: Tensor | None = None) -> dict[str, Tensor]:
    """Lengths, endings and variety of the traces.

    Args:
        rollouts: N completions.
        entropy: of the distributions the tokens were drawn from, in nats, [N, C].
    """
    segments = rollouts.segments
    lengths = segments.trace_mask.sum(dim=1).float()  # [N]
    metrics = {
        "trace_tokens": lengths.mean(),
        "trace_tokens_max": lengths.max(),
        "truncated_share": rollouts.truncated.float().mean(),
        "marker_rate": segments.marker_emitted.float().mean(),
        "unique_traces": unique_share(rollouts),
        "answer_tokens": segments.answer_mask.sum(dim=1).float().mean(),
        "prompt_tokens": rollouts.prompt_mask.sum(dim=1).float().mean(),
    }
    if entropy is not None:
        metrics["trace_entropy"] = (entropy * segments.trace_mask).sum() / segments.trace_mask.sum().clamp(min=1)
    return metrics


def unique_share(rollouts: Rollouts) -> Tensor:
    """Distinct traces of the same prompt, as a share of all traces; 1 when no trace is written twice."""
    trace = torch.where(rollouts.segments.trace_mask, rollouts.completion_ids, -1)  # [N, C]
    rows = torch.cat([rollouts.group_ids.unsqueeze(1), trace], dim=1)  # [N, 1 + C]
    return torch.tensor(rows.unique(dim=0).shape[0] / max(len(rollouts), 1), device=trace.device)


def group_metrics(
    values: Tensor, baseline_values: Tensor | None, advantages: Tensor, group_ids: Tensor
) -> dict[str, Tensor]:
    """Rewards and advantages of the groups.

    Args:
        values: the trace rewards, [N].
        baseline_values: the empty trace's reward, repeated for its group, [N].
        advantages: [N].
        group_ids: [N].
    """
    groups = group_statistics(values, group_ids, values.isfinite())
    metrics = {
        "reward": masked_mean(values, values.isfinite()),  # a row of minus infinity takes no part in its group either
        "reward_group_std": groups.std.mean(),
        "zero_variance_groups": (groups.std == 0).float().mean(),
        "advantage_mean": advantages.mean(),
        "advantage_abs": advantages.abs().mean(),
    }
    if baseline_values is not None:
        gain = values - baseline_values
        metrics |= {"gain": gain.mean(), "gain_positive_share": (gain > 0).float().mean()}
    return metrics
