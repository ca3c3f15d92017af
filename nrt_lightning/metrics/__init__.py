"""Metrics of evaluation, as torchmetrics, and scalars of training batches."""

from nrt_lightning.metrics.correctness import CorrectnessMetric, reward_correctness
from nrt_lightning.metrics.dependence import PromptDependence, prompt_dependence
from nrt_lightning.metrics.difficulty import GainByDifficulty
from nrt_lightning.metrics.reasoning import ReasoningMetrics
from nrt_lightning.metrics.rollouts import group_metrics, loss_metrics, rollout_metrics, signal_metrics
from nrt_lightning.metrics.scalars import Max, Mean, Scalar, Sum
from nrt_lightning.metrics.self_assessment import self_assessment

__all__ = [
    "CorrectnessMetric", "GainByDifficulty", "Max", "Mean", "PromptDependence", "ReasoningMetrics", "Scalar", "Sum",
    "group_metrics", "loss_metrics", "prompt_dependence", "reward_correctness", "rollout_metrics",
    "self_assessment", "signal_metrics"
]  # fmt: skip
