"""torchmetrics: what a validation reports, and what a batch of rollouts looks like."""

from nrt_lightning.metrics.correctness import CorrectnessMetric, reward_correctness
from nrt_lightning.metrics.dependence import PromptDependence, prompt_dependence
from nrt_lightning.metrics.difficulty import GainByDifficulty
from nrt_lightning.metrics.reasoning import ReasoningMetrics
from nrt_lightning.metrics.rollouts import group_metrics, rollout_metrics

__all__ = [
    "CorrectnessMetric",
    "GainByDifficulty",
    "PromptDependence",
    "ReasoningMetrics",
    "group_metrics",
    "prompt_dependence",
    "reward_correctness",
    "rollout_metrics",
]
