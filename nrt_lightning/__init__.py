"""Native Reasoning Training on PyTorch Lightning: language models learn to reason from question-answer pairs alone."""

from nrt_lightning.advantages import AdvantageEstimator, GroupNormalized, LeaveOneOut
from nrt_lightning.callbacks import OnPolicyRollout, PredictionWriter, ResultsFile, TraceSamples
from nrt_lightning.data import (
    ChatTemplate,
    FileSource,
    Messages,
    PlainTemplate,
    PromptCompletion,
    QADataModule,
    QASource,
    QuestionAnswer,
)
from nrt_lightning.data.corpus import RegisterCorpus
from nrt_lightning.data.registers import RegisterPrograms
from nrt_lightning.errors import InputError
from nrt_lightning.losses import CISPO, ClippedRatio, NRTLoss, PolicyGradient
from nrt_lightning.models import FrozenReference, NoReference, Policy, PromptCopies, Reference
from nrt_lightning.module import NRTModule
from nrt_lightning.rewards import (
    ArithmeticMean,
    DerivedTokenWeights,
    FixedTokenWeights,
    GeometricMean,
    LogProb,
    Prob,
    RewardAggregator,
    WeightedSum,
)
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine
from nrt_lightning.schedules import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule
from nrt_lightning.sft import SFTModule
from nrt_lightning.structures import Prompts, Rollouts, Row, Sampling, Scores, TraceReward

__version__ = "0.1.0"

__all__ = [
    "CISPO",
    "AdvantageEstimator",
    "ArithmeticMean",
    "ChatTemplate",
    "ClippedRatio",
    "ConstantSchedule",
    "CosineSchedule",
    "DerivedTokenWeights",
    "FileSource",
    "FixedTokenWeights",
    "FrozenReference",
    "GeometricMean",
    "GroupNormalized",
    "InputError",
    "LeaveOneOut",
    "LinearSchedule",
    "LogProb",
    "Messages",
    "NRTLoss",
    "NRTModule",
    "NoReference",
    "OnPolicyRollout",
    "PlainTemplate",
    "Policy",
    "PolicyGradient",
    "PredictionWriter",
    "Prob",
    "PromptCompletion",
    "PromptCopies",
    "Prompts",
    "QADataModule",
    "QASource",
    "QuestionAnswer",
    "Reference",
    "RegisterCorpus",
    "RegisterPrograms",
    "ResultsFile",
    "RewardAggregator",
    "RolloutEngine",
    "Rollouts",
    "Row",
    "SFTModule",
    "Sampling",
    "Schedule",
    "Scores",
    "TraceReward",
    "TraceSamples",
    "TransformersEngine",
    "WeightedSum",
]
