"""The loss of Native Reasoning Training: `NRTLoss`, its inputs, its terms as pure functions, and surrogates."""

from nrt_lightning.losses.entropy import AdaptiveEntropyBonus, EntropyBonus
from nrt_lightning.losses.hybrid import HybridImportance, HybridSequenceImportance
from nrt_lightning.losses.inputs import LossInputs, WholeBatch
from nrt_lightning.losses.nrt import NRTLoss
from nrt_lightning.losses.sampler_mismatch import (
    MaskedImportance,
    MaskedSequenceImportance,
    SamplerCorrection,
    TruncatedImportance,
    TruncatedSequenceImportance,
    sampler_ratio,
)
from nrt_lightning.losses.surrogates import (
    CISPO,
    ClippedRatio,
    ClippedSequenceRatio,
    PolicyGradient,
    Surrogate,
    SurrogateOutput,
    importance_ratio,
)
from nrt_lightning.losses.terms import (
    TokenTerm,
    TraceTerm,
    answer_term,
    entropy_term,
    forced_marker_tokens,
    kl_term,
    marker_term,
    sampled_tokens,
    trace_term,
    trace_tokens,
)

__all__ = [
    "CISPO", "AdaptiveEntropyBonus", "ClippedRatio", "ClippedSequenceRatio", "EntropyBonus",
    "HybridImportance", "HybridSequenceImportance", "LossInputs",
    "MaskedImportance", "MaskedSequenceImportance", "NRTLoss", "PolicyGradient", "SamplerCorrection", "Surrogate",
    "SurrogateOutput", "TokenTerm", "TraceTerm", "TruncatedImportance", "TruncatedSequenceImportance", "WholeBatch",
    "answer_term", "entropy_term", "forced_marker_tokens", "importance_ratio", "kl_term", "marker_term",
    "sampled_tokens", "sampler_ratio", "trace_term", "trace_tokens"
]  # fmt: skip
