"""Signals, from which the reward of a trace is combined, and their combinations."""

from nrt_lightning.signals.answer_confidence import AnswerConfidence
from nrt_lightning.signals.answer_length import AnswerLength
from nrt_lightning.signals.answer_match import AnswerMatch
from nrt_lightning.signals.base import (
    RolloutEvidence,
    RolloutSignal,
    RolloutText,
    ScoreEvidence,
    ScoreSignal,
    Signal,
    TextSignal,
)
from nrt_lightning.signals.choice_letter import ChoiceLetter
from nrt_lightning.signals.combiner import SignalCombiner
from nrt_lightning.signals.exact_match import ExactMatch
from nrt_lightning.signals.format import Format
from nrt_lightning.signals.function import FunctionSignal
from nrt_lightning.signals.gain import GainOverBaseline
from nrt_lightning.signals.geometric_mean import GeometricMeanOfSignals
from nrt_lightning.signals.group_normalized_sum import GroupNormalizedSum
from nrt_lightning.signals.length_penalty import LengthPenalty
from nrt_lightning.signals.match_first import MatchFirst
from nrt_lightning.signals.math_verify import MathVerify
from nrt_lightning.signals.numeric_match import NumericMatch
from nrt_lightning.signals.own_answers import AnswerShare, MajorityVote
from nrt_lightning.signals.own_certainty import NegativeEntropy, OwnLogProb
from nrt_lightning.signals.reasoning_gym_score import ReasoningGymScore
from nrt_lightning.signals.reasoning_perplexity import PerplexityRank, ReasoningEfficiency
from nrt_lightning.signals.reasoning_reflection import ReasoningReflection
from nrt_lightning.signals.repetition import Repetition
from nrt_lightning.signals.self_certainty import SelfCertainty
from nrt_lightning.signals.token_f1 import TokenF1
from nrt_lightning.signals.weighted_sum import WeightedSumOfSignals

__all__ = [
    "AnswerConfidence", "AnswerLength", "AnswerMatch", "AnswerShare", "ChoiceLetter", "ExactMatch", "Format",
    "FunctionSignal", "GainOverBaseline", "GeometricMeanOfSignals", "GroupNormalizedSum", "LengthPenalty",
    "MajorityVote", "MatchFirst", "MathVerify", "NegativeEntropy", "NumericMatch", "OwnLogProb", "PerplexityRank",
    "ReasoningEfficiency", "ReasoningGymScore", "ReasoningReflection", "Repetition", "RolloutEvidence",
    "RolloutSignal", "RolloutText", "ScoreEvidence", "ScoreSignal", "SelfCertainty", "Signal", "SignalCombiner",
    "TextSignal", "TokenF1", "WeightedSumOfSignals"
]  # fmt: skip
