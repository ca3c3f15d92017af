"""The loss of Native Reasoning Training: its terms as pure functions, its surrogates, and `NRTLoss` that adds them."""

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
from nrt_lightning.losses.whole_batch import WholeBatch

__all__ = [
    "CISPO",
    "ClippedRatio",
    "NRTLoss",
    "PolicyGradient",
    "Surrogate",
    "SurrogateOutput",
    "TokenTerm",
    "TraceTerm",
    "TruncatedImportance",
    "WholeBatch",
    "answer_term",
    "forced_marker_tokens",
    "importance_ratio",
    "kl_term",
    "marker_term",
    "sampled_tokens",
    "sampler_ratio",
    "trace_term",
    "trace_tokens",
]
