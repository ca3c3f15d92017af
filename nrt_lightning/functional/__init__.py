"""Functions on tensors: log-probabilities, masks, reductions, KL estimators and group statistics. Needs only torch."""

from nrt_lightning.functional.groups import GroupStatistics, group_logsumexp, group_normalize, group_statistics
from nrt_lightning.functional.kl import K1, K2, K3, KLEstimator
from nrt_lightning.functional.logprobs import entropy, token_logprobs
from nrt_lightning.functional.masking import masked_mean, masked_sum, pack_segment, unpack_segment
from nrt_lightning.functional.padding import pad_rows, pad_to_widest
from nrt_lightning.functional.precision import at_least_float32
from nrt_lightning.functional.reductions import Reduction, SequenceMean, SequenceSum, SequenceSumConstant, TokenMean
from nrt_lightning.functional.validation import (
    check_at_least,
    check_choice,
    check_fraction,
    check_interval,
    check_same_shape,
)

__all__ = [
    "K1", "K2", "K3", "GroupStatistics", "KLEstimator", "Reduction", "SequenceMean", "SequenceSum",
    "SequenceSumConstant", "TokenMean", "at_least_float32", "check_at_least", "check_choice", "check_fraction",
    "check_interval", "check_same_shape", "entropy", "group_logsumexp", "group_normalize", "group_statistics",
    "masked_mean", "masked_sum", "pack_segment", "pad_rows", "pad_to_widest", "token_logprobs", "unpack_segment"
]  # fmt: skip
