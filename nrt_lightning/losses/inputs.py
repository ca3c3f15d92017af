"""Inputs of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.functional import check_same_shape
from nrt_lightning.structures import Segments, TensorStruct


@dataclass(kw_only=True)
class LossInputs(TensorStruct):
    """N rollouts as `NRTLoss` reads them. Log-probs are in nats; values outside the mask of a term are ignored.

    Gradients flow into `logprobs`, and into `entropy` for an entropy bonus.
    """

    logprobs: Tensor  # [N, C] of the policy
    old_logprobs: Tensor  # [N, C] of the policy before the first step on these rollouts; on-policy `logprobs` itself
    segments: Segments  # the tokens of trace, marker and answer; a row without tokens carries no loss
    advantages: Tensor  # [N] one per trace, or [N, C] one per token
    token_weights: Tensor  # [N, C] of the answer tokens
    ref_logprobs: Tensor | None = None  # [N, C] of the reference
    sampling_logprobs: Tensor | None = None  # [N, C] of the sampler
    importance: Tensor | None = None  # [N, C] more weights of the trace term, at least 0
    drawn_logprobs: Tensor | None = None  # [N, C] of the old policy after the prompts of the sampler, if these differ
    entropy: Tensor | None = None  # [N, C] of the policy's distributions, with gradient for an entropy bonus

    def check_shapes(self) -> None:
        """Raise `InputError` unless all shapes agree with `logprobs`."""
        for name in (
            "old_logprobs",
            "token_weights",
            "ref_logprobs",
            "sampling_logprobs",
            "importance",
            "drawn_logprobs",
            "entropy",
        ):
            tensor = getattr(self, name)
            if tensor is not None:
                fix = "Use unpack_segment to align them." if name == "token_weights" else ""
                check_same_shape(name, tensor, "logprobs", self.logprobs, fix)
        check_same_shape("trace_mask", self.segments.trace_mask, "logprobs", self.logprobs)
        if self.advantages.dim() == 2:
            check_same_shape("advantages", self.advantages, "logprobs", self.logprobs)
        else:
            check_same_shape("advantages", self.advantages, "marker_emitted", self.segments.marker_emitted)


@dataclass
class WholeBatch:
    """The batch that a micro-batch of n rollouts is a part of."""

    segments: Segments  # of all N rollouts of the batch
    rows: Tensor  # [n] the rows of the micro-batch within the batch

    def part(self, values: Tensor, like: Tensor) -> Tensor:
        """The values of the micro-batch in the shape of `like`. `[N, C]` -> `[n, c]`"""
        return values[self.rows, : like.shape[1]]
