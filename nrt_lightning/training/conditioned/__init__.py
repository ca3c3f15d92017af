"""Traces that are drawn with the answer in the prompt."""

from nrt_lightning.training.conditioned.answer_conditioned import AnswerConditioned
from nrt_lightning.training.conditioned.leak_guard import LeakGuard
from nrt_lightning.training.conditioned.shares import FallingShare, FixedShare, Share, ShareByReward

__all__ = ["AnswerConditioned", "FallingShare", "FixedShare", "LeakGuard", "Share", "ShareByReward"]
