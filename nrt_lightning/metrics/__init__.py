"""torchmetrics: what a validation reports, and what a batch of rollouts looks like."""

from nrt_lightning.metrics.difficulty import GainByDifficulty
from nrt_lightning.metrics.reasoning import ReasoningMetrics
from nrt_lightning.metrics.rollouts import group_metrics, rollout_metrics

__all__ = ["GainByDifficulty", "ReasoningMetrics", "group_metrics", "rollout_metrics"]
