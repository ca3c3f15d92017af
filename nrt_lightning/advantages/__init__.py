"""Advantage estimators: they compare the trace rewards of rollouts of the same prompt or batch."""

from nrt_lightning.advantages.base import AdvantageEstimator
from nrt_lightning.advantages.batch_normalized import BatchNormalized
from nrt_lightning.advantages.clipped import ClippedAdvantages
from nrt_lightning.advantages.group_normalized import GroupNormalized
from nrt_lightning.advantages.leave_one_out import LeaveOneOut
from nrt_lightning.advantages.max_rl import MaxRL
from nrt_lightning.advantages.multi_sample_bound import MultiSampleBound

__all__ = [
    "AdvantageEstimator", "BatchNormalized", "ClippedAdvantages", "GroupNormalized", "LeaveOneOut", "MaxRL",
    "MultiSampleBound"
]  # fmt: skip
