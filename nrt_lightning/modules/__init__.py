"""The LightningModules, and schedules of the learning rate."""

from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.modules.schedules import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule
from nrt_lightning.modules.sft import SFTModule

__all__ = ["ConstantSchedule", "CosineSchedule", "LinearSchedule", "NRTModule", "SFTModule", "Schedule"]
