"""Evaluation: a policy's texts and scores on held-out questions, and metrics of them."""

from nrt_lightning.evaluation.answered import AnsweredQuestion, SampledAnswer
from nrt_lightning.evaluation.evaluate import Evaluation, evaluate, evaluate_direct_answers
from nrt_lightning.evaluation.metrics import EvaluationMetrics, TextMetric
from nrt_lightning.evaluation.questions import AnswerSettings, Questionnaire
from nrt_lightning.evaluation.summary import pass_at_k, summarize

__all__ = [
    "AnswerSettings", "AnsweredQuestion", "Evaluation", "EvaluationMetrics", "Questionnaire", "SampledAnswer",
    "TextMetric", "evaluate", "evaluate_direct_answers", "pass_at_k", "summarize",
]  # fmt: skip
