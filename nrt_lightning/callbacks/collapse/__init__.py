"""Detection of reasoning collapse: measurements, signs and actions."""

from nrt_lightning.callbacks.collapse.actions import (
    CollapseAction,
    LowerLearningRate,
    RestoreCheckpoint,
    StopTraining,
)
from nrt_lightning.callbacks.collapse.detector import CollapseDetector
from nrt_lightning.callbacks.collapse.signs import (
    CollapseSign,
    EmptyTraces,
    LostGain,
    LostMarker,
    SameAnswers,
    TemplateTraces,
    UnfinishedResponses,
    WorthlessCertainty,
)
from nrt_lightning.callbacks.collapse.vitals import Vitals

__all__ = [
    "CollapseAction", "CollapseDetector", "CollapseSign", "EmptyTraces", "LostGain", "LostMarker", "LowerLearningRate",
    "RestoreCheckpoint", "SameAnswers", "StopTraining", "TemplateTraces", "UnfinishedResponses", "Vitals",
    "WorthlessCertainty"
]  # fmt: skip
