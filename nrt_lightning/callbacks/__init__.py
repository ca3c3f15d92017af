"""Lightning callbacks: rollouts, and what a run shows and leaves behind."""

from nrt_lightning.callbacks.difficulty_gain import DifficultyGain
from nrt_lightning.callbacks.export import ExportPolicy
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.callbacks.predictions import PredictionWriter
from nrt_lightning.callbacks.results import ResultsFile
from nrt_lightning.callbacks.trace_samples import TraceSamples

__all__ = ["DifficultyGain", "ExportPolicy", "OnPolicyRollout", "PredictionWriter", "ResultsFile", "TraceSamples"]
