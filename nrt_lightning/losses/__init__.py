"""The loss of Native Reasoning Training: its terms as pure functions, its surrogates, and `NRTLoss` that adds them."""

from nrt_lightning.losses.nrt import NRTLoss, WholeBatch
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
    "CISPO",
    "ClippedRatio",
    "NRTLoss",
    "PolicyGradient",
    "Surrogate",
    "SurrogateOutput",
    "TokenTerm",
    "TraceTerm",
    "WholeBatch",
    "answer_term",
    "forced_marker_tokens",
    "importance_ratio",
    "kl_term",
    "marker_term",
    "sampled_tokens",
    "trace_term",
    "trace_tokens",
]
