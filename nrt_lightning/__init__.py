"""Native Reasoning Training on PyTorch Lightning: language models learn to reason from question-answer pairs alone."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Names are imported when they are asked for: `import nrt_lightning.losses` loads torch and nothing else.
EXPORTS = {
    "advantages": ["AdvantageEstimator", "GroupNormalized", "LeaveOneOut"],
    "callbacks": ["ExportPolicy", "OnPolicyRollout", "PredictionWriter", "ResultsFile", "TraceSamples"],
    "data": [
        "ChatTemplate",
        "FileSource",
        "Messages",
        "PlainTemplate",
        "PromptCompletion",
        "QADataModule",
        "QASource",
        "QuestionAnswer",
    ],
    "data.corpus": ["RegisterCorpus"],
    "data.registers": ["RegisterPrograms"],
    "errors": ["InputError"],
    "export": ["AdapterFiles", "ExportForm", "Merged", "WholeModel", "export_policy"],
    "losses": ["CISPO", "ClippedRatio", "NRTLoss", "PolicyGradient"],
    "models": [
        "Adapter",
        "AdapterDisabledReference",
        "BestScoring",
        "FourBit",
        "FrozenReference",
        "LoRA",
        "NoReference",
        "PackedGroups",
        "Policy",
        "PromptCopies",
        "PromptTree",
        "Quantization",
        "QuantizedReference",
        "Reference",
        "SharedPrompt",
    ],
    "module": ["NRTModule"],
    "rewards": [
        "ArithmeticMean",
        "DerivedTokenWeights",
        "FixedTokenWeights",
        "GeometricMean",
        "LogProb",
        "Prob",
        "RewardAggregator",
        "WeightedSum",
    ],
    "rollouts": ["RolloutEngine", "TransformersEngine"],
    "schedules": ["ConstantSchedule", "CosineSchedule", "LinearSchedule", "Schedule"],
    "sft": ["SFTModule"],
    "structures": ["Prompts", "Rollouts", "Row", "Sampling", "Scores", "TraceReward"],
}
HOMES = {name: module for module, names in EXPORTS.items() for name in names}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *HOMES]
