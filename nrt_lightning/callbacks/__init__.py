"""Lightning callbacks: rollouts, diagnostics, and results of a run."""

from nrt_lightning.callbacks.ahead_rollout import AheadRollout
from nrt_lightning.callbacks.benchmark_evaluation import BenchmarkEvaluation
from nrt_lightning.callbacks.best_and_last import BestAndLast
from nrt_lightning.callbacks.check_longest import CheckLongest
from nrt_lightning.callbacks.collapse import (
    CollapseAction,
    CollapseDetector,
    CollapseSign,
    EmptyTraces,
    LostGain,
    LostMarker,
    LowerLearningRate,
    RestoreCheckpoint,
    SameAnswers,
    StopTraining,
    TemplateTraces,
    UnfinishedResponses,
    WorthlessCertainty,
)
from nrt_lightning.callbacks.dashboard import Dashboard
from nrt_lightning.callbacks.difficulty_gain import DifficultyGain
from nrt_lightning.callbacks.export import ExportPolicy
from nrt_lightning.callbacks.heat_map import AnswerHeatMap
from nrt_lightning.callbacks.hyperparameters import Hyperparameters
from nrt_lightning.callbacks.non_finite_guard import NonFiniteGuard
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.callbacks.predictions import PredictionWriter
from nrt_lightning.callbacks.progress_lines import ProgressLines, ValidationTable
from nrt_lightning.callbacks.results import ResultsFile
from nrt_lightning.callbacks.reward_correctness import RewardCorrectness
from nrt_lightning.callbacks.run_history import RunHistory
from nrt_lightning.callbacks.run_report import RunReport
from nrt_lightning.callbacks.save_on_signal import SaveOnSignal
from nrt_lightning.callbacks.self_assessment import SelfAssessment
from nrt_lightning.callbacks.step_axis import StepAxis
from nrt_lightning.callbacks.trace_samples import TraceSamples

__all__ = [
    "AheadRollout", "AnswerHeatMap", "BenchmarkEvaluation", "BestAndLast", "CheckLongest", "CollapseAction",
    "CollapseDetector", "CollapseSign", "Dashboard", "DifficultyGain", "EmptyTraces", "ExportPolicy",
    "Hyperparameters", "LostGain", "LostMarker", "LowerLearningRate", "NonFiniteGuard", "OnPolicyRollout",
    "PredictionWriter", "ProgressLines", "RestoreCheckpoint", "ResultsFile", "RewardCorrectness", "RunHistory",
    "RunReport", "SameAnswers", "SaveOnSignal", "SelfAssessment", "StepAxis", "StopTraining", "TemplateTraces",
    "TraceSamples",
    "UnfinishedResponses", "ValidationTable", "WorthlessCertainty"
]  # fmt: skip
