"""Evaluation: a policy's texts and scores on held-out questions, and metrics of them."""

from nrt_lightning.evaluation.evaluate import Evaluation, evaluate, evaluate_direct_answers
from nrt_lightning.evaluation.metrics import EvaluationMetrics, TextMetric

__all__ = ["Evaluation", "EvaluationMetrics", "TextMetric", "evaluate", "evaluate_direct_answers"]
