"""What travels between the stages of a training step: dataclasses of tensors, with shapes on their fields.

Shapes: B prompts, K group size, N = B * K rollouts, P prompt length, C completion length, T answer length.
Masks are bool and True means "counts". Row n of a `[N, ...]` tensor belongs to prompt `group_ids[n]`.
"""

from nrt_lightning.structures.base import Struct, TensorStruct
from nrt_lightning.structures.conditioning import Conditioning
from nrt_lightning.structures.markup import Markup
from nrt_lightning.structures.prompts import Prompts, Row, WindowStep
from nrt_lightning.structures.results import Credit, LossOutput, Scores, TraceReward
from nrt_lightning.structures.rollouts import PolicyAnswers, Rollouts, Segments
from nrt_lightning.structures.sampling import Sampling
from nrt_lightning.structures.steps import Steps

__all__ = [
    "Conditioning", "Credit", "LossOutput", "Markup", "PolicyAnswers", "Prompts", "Rollouts", "Row", "Sampling",
    "Scores", "Segments", "Steps", "Struct", "TensorStruct", "TraceReward", "WindowStep"
]  # fmt: skip
