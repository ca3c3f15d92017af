"""The loss of Native Reasoning Training: `NRTLoss`, its inputs, its terms as pure functions, and surrogates."""

from nrt_lightning.losses.inputs import LossInputs, WholeBatch
from nrt_lightning.losses.nrt import NRTLoss
from nrt_lightning.losses.sampler_mismatch import TruncatedImportance, sampler_ratio
from nrt_lightning.losses.surrogates import (
    CISPO,
    ClippedRatio,
    PolicyGradient,
    Surrogate,
    SurrogateOutput,
    importance_ratio,
)
from nrt_lightning.losses.terms import (
    TokenTerm,
    TraceTerm,
    answer_term,
    forced_marker_tokens,
    kl_term,
    marker_term,
    sampled_tokens,
    trace_term,
    trace_tokens,
)

__all__ = [
    "CISPO", "ClippedRatio", "LossInputs", "NRTLoss", "PolicyGradient", "Surrogate", "SurrogateOutput", "TokenTerm",
    "TraceTerm", "TruncatedImportance", "WholeBatch", "answer_term", "forced_marker_tokens", "importance_ratio",
    "kl_term", "marker_term", "sampled_tokens", "sampler_ratio", "trace_term", "trace_tokens"
]  # fmt: skip
