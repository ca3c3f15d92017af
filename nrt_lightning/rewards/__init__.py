"""Trace rewards from the policy's confidence in the answer, token weights of the answer term, and penalties."""

from nrt_lightning.rewards.arithmetic_mean import ArithmeticMean
from nrt_lightning.rewards.base import RewardAggregator
from nrt_lightning.rewards.geometric_mean import GeometricMean
from nrt_lightning.rewards.kl_penalty import KLPenalty
from nrt_lightning.rewards.log_prob import LogProb
from nrt_lightning.rewards.mean_log_prob import MeanLogProb
from nrt_lightning.rewards.overlong import KeepOverlong, MaskOverlong, OverlongTraces, PenalizeOverlong, TwiceTheMean
from nrt_lightning.rewards.prob import Prob
from nrt_lightning.rewards.token_weights import (
    DerivedTokenWeights,
    FixedTokenWeights,
    PosteriorTokenWeights,
    TokenWeighting,
)
from nrt_lightning.rewards.weighted_sum import WeightedSum

__all__ = [
    "ArithmeticMean", "DerivedTokenWeights", "FixedTokenWeights", "GeometricMean", "KLPenalty", "KeepOverlong",
    "LogProb", "MaskOverlong", "MeanLogProb", "OverlongTraces", "PenalizeOverlong", "PosteriorTokenWeights", "Prob",
    "RewardAggregator", "TokenWeighting", "TwiceTheMean", "WeightedSum"
]  # fmt: skip
