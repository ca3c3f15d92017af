"""Advantage estimators: from the trace rewards of a prompt's rollouts to what each trace is worth among them."""

from nrt_lightning.advantages.base import AdvantageEstimator
from nrt_lightning.advantages.batch_normalized import BatchNormalized
from nrt_lightning.advantages.group_centered import GroupCentered
from nrt_lightning.advantages.group_normalized import GroupNormalized
from nrt_lightning.advantages.leave_one_out import LeaveOneOut

__all__ = ["AdvantageEstimator", "BatchNormalized", "GroupCentered", "GroupNormalized", "LeaveOneOut"]
