"""What is logged of a loss besides its parts."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, masked_mean
from nrt_lightning.losses.inputs import LossInputs
from nrt_lightning.losses.surrogates import importance_ratio
from nrt_lightning.losses.terms import under
from nrt_lightning.structures import Segments


def ratio_metrics(inputs: LossInputs, mask: Tensor, clipped: Tensor) -> dict[str, Tensor]:
    """Ratios and clipping of the tokens in `mask` `[N, C]`, and the surprise of the reference answer in nats."""
    logprobs = inputs.logprobs.detach()
    ratio = importance_ratio(under(mask, logprobs), under(mask, inputs.old_logprobs))  # [N, C]
    return {
        "ratio_mean": masked_mean(ratio, mask),
        "ratio_max": torch.where(mask, ratio, 0).max(),
        "clip_share": masked_mean(clipped.to(ratio.dtype), mask),
        "answer_nll": masked_mean(-at_least_float32(logprobs), inputs.segments.answer_mask),
    }


def token_counts(metrics: dict[str, Tensor], segments: Segments, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """The number of tokens that each mean is over: sampled tokens, unless named here."""
    over = {"ratio_mean": masks["trace"], "clip_share": masks["trace"], "answer_nll": segments.answer_mask}
    return {name: over.get(name, masks["kl"]).sum() for name in metrics if not name.endswith("_max")}
