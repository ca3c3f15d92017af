"""The loss of Native Reasoning Training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional import (
    K3,
    KLEstimator,
    Reduction,
    SequenceSumConstant,
    at_least_float32,
    check_at_least,
    check_choice,
    check_same_shape,
    masked_mean,
    masked_sum,
)
from nrt_lightning.losses.sampler_mismatch import TruncatedImportance
from nrt_lightning.losses.surrogates import CISPO, Surrogate, importance_ratio
from nrt_lightning.losses.terms import (
    FORCED_MARKER_CHOICES,
    ForcedMarker,
    TokenTerm,
    answer_term,
    forced_marker_tokens,
    kl_term,
    marker_term,
    sampled_tokens,
    trace_term,
    trace_tokens,
    under,
)
from nrt_lightning.losses.whole_batch import WholeBatch
from nrt_lightning.structures import LossOutput, Segments


@dataclass
class NRTLoss:
    """`trace_coef * trace + marker_coef * marker + answer_coef * answer + kl_coef * KL` (arXiv 2602.11549).

    - trace: the surrogate of the sampled tokens, weighted by the advantage of their trace.
    - marker: `-logprobs` of the marker, in rollouts that did not write it themselves unless told otherwise.
    - answer: `-token_weights * logprobs` of the answer.
    - KL: of the policy against the reference, on the sampled tokens.

    Each term is reduced on its own. A term without tokens is 0 with a zero gradient, and a term whose coefficient is
    0 is reported but takes no part in the loss. Log-probs outside the masks may hold anything: their gradient is 0.

    Args:
        surrogate: per-token loss of the trace.
        reduction: from per-token values to a scalar.
        trace_coef: weight of the trace term.
        marker_coef: weight of the marker term.
        answer_coef: weight of the answer term.
        kl_coef: weight of the KL term; not 0 requires log-probs of a reference.
        kl: estimator of the KL.
        forced_marker: "excluded" gives forced markers the marker term alone; "authors" gives them the advantage of
            the trace too, so that a bad trace pushes the marker down.
        marker_rows: rollouts with a marker term: "forced", those that did not write it themselves, or "all". Where
            traces are sampled with `suppress_eos` every trace ends with the marker, and only "all" teaches the policy
            to prefer it to the end token once nobody keeps that out.
        answer_rows: rollouts with an answer term: "all", or "emitted", those that wrote their marker themselves.
            VeriFree and JEPO (arXiv 2505.21493, 2503.19618) learn no answer from a trace that did not end by itself.
        sampler_correction: weights for tokens that the sampler gave another probability than the trainer does; null
            takes the two to be the same.

    Raises:
        InputError: if a coefficient is negative, or `forced_marker`, `marker_rows` or `answer_rows` unknown.

    Example:
        >>> import torch
        >>> from nrt_lightning.structures import Segments
        >>> mask = lambda *row: torch.tensor([row], dtype=torch.bool)
        >>> segments = Segments(mask(1, 0, 0), mask(0, 1, 0), mask(0, 0, 1), torch.tensor([True]))
        >>> logprobs = torch.tensor([[-1.0, -0.5, -0.25]], requires_grad=True)
        >>> out = NRTLoss(reduction=SequenceSumConstant(1))(
        ...     logprobs, logprobs, segments, advantages=torch.tensor([2.0]), token_weights=torch.ones(1, 3)
        ... )
        >>> out.loss.item(), out.terms["trace"].item(), out.terms["answer"].item()
        (3.25, 3.0, 0.25)
    """

    surrogate: Surrogate = field(default_factory=CISPO)
    reduction: Reduction = field(default_factory=SequenceSumConstant)
    trace_coef: float = 1.0
    marker_coef: float = 0.3
    answer_coef: float = 1.0
    kl_coef: float = 0.0
    kl: KLEstimator = field(default_factory=K3)
    forced_marker: ForcedMarker = "excluded"
    marker_rows: Literal["forced", "all"] = "forced"
    answer_rows: Literal["all", "emitted"] = "all"
    sampler_correction: TruncatedImportance | None = None

    def __post_init__(self) -> None:
        for name in ("trace_coef", "marker_coef", "answer_coef", "kl_coef"):
            check_at_least(name, getattr(self, name), 0)
        check_choice("forced_marker", self.forced_marker, FORCED_MARKER_CHOICES)
        check_choice("marker_rows", self.marker_rows, ("forced", "all"))
        check_choice("answer_rows", self.answer_rows, ("all", "emitted"))

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        segments: Segments,
        advantages: Tensor,
        token_weights: Tensor,
        ref_logprobs: Tensor | None = None,
        whole: WholeBatch | None = None,
        sampling_logprobs: Tensor | None = None,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> LossOutput:
        """The loss of N rollouts.

        Args:
            logprobs: `[N, C]` of the policy, with gradient, in nats.
            old_logprobs: `[N, C]` of the old policy; on-policy `logprobs` itself.
            segments: which token is what.
            advantages: `[N]` one for each trace.
            token_weights: `[N, C]` of the answer's tokens.
            ref_logprobs: `[N, C]` of the reference; None without one.
            whole: the batch that these rollouts are a part of; None: they are all. The losses of the parts of a
                batch then add up to the loss of the batch, see `needs_full_batch`.
            sampling_logprobs: `[N, C]` of the sampler, needed for a `sampler_correction`.
            mean: of a tensor over processes; None: there is one. Their losses' mean is then that of all rollouts.

        Returns:
            The loss; the terms `trace`, `marker`, `answer` (and `kl` when its coefficient is not 0), each reduced,
            before its coefficient; and metrics as means over tokens: `ratio_mean`, `ratio_max`, `clip_share` on the
            trace, `answer_nll` in nats, and `kl` in nats where a reference is given; with a `sampler_correction` also
            its metrics. All but the loss are detached.

        Raises:
            InputError: if shapes differ, or `kl_coef` is not 0 and `ref_logprobs` is missing, or
                `sampling_logprobs` where there is a `sampler_correction`.
        """
        tensors = {
            "old_logprobs": old_logprobs,
            "token_weights": token_weights,
            "ref_logprobs": ref_logprobs,
            "sampling_logprobs": sampling_logprobs,
        }
        self._check(logprobs, segments, advantages, tensors)
        masks = self._masks(segments)
        importance, mismatch = self._importance(old_logprobs, sampling_logprobs, sampled_tokens(segments))
        trace = trace_term(logprobs, old_logprobs, advantages, masks["trace"], self.surrogate, importance)
        terms: dict[str, tuple[float, TokenTerm]] = {
            "trace": (self.trace_coef, trace),
            "marker": (self.marker_coef, marker_term(logprobs, masks["marker"])),
            "answer": (self.answer_coef, answer_term(logprobs, token_weights, masks["answer"])),
        }
        metrics = self._metrics(logprobs.detach(), old_logprobs, masks["trace"], trace.clipped, segments) | mismatch
        if ref_logprobs is not None:
            kl = kl_term(logprobs, ref_logprobs, masks["kl"], self.kl)
            metrics["kl"] = masked_mean(kl.values.detach(), kl.mask)
            if self.kl_coef:
                terms["kl"] = (self.kl_coef, kl)
        loss, reduced = self._total(logprobs, terms, whole, mean)
        counts = dict.fromkeys(("kl", "sampler_ratio_mean", "sampler_capped_share"), masks["kl"].sum())
        counts |= dict.fromkeys(("ratio_mean", "clip_share"), masks["trace"].sum())
        counts["answer_nll"] = segments.answer_mask.sum()
        return LossOutput(loss, reduced, metrics, {name: n for name, n in counts.items() if name in metrics})

    @property
    def needs_full_batch(self) -> bool:
        """Whether off-policy the loss of a rollout depends on the log-probs of the others in the batch.

        It does where clipped tokens leave the denominator of a mean: which ones do is not known until all are scored.
        """
        return self.surrogate.drops_clipped and self.reduction.counts_tokens

    def _importance(
        self, old_logprobs: Tensor, sampling_logprobs: Tensor | None, sampled: Tensor
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        if self.sampler_correction is None or sampling_logprobs is None:
            return None, {}
        correction = self.sampler_correction
        weights = correction(old_logprobs, sampling_logprobs, sampled)  # [N, C]
        return weights, correction.metrics(old_logprobs, sampling_logprobs, sampled)

    def _masks(self, segments: Segments) -> dict[str, Tensor]:
        """The tokens of each term, [N, C]."""
        marker = segments.marker_mask if self.marker_rows == "all" else forced_marker_tokens(segments)
        trace = trace_tokens(segments, self.forced_marker)
        answer = segments.answer_mask
        if self.answer_rows == "emitted":
            answer = answer & segments.marker_emitted.unsqueeze(1)
        return {"trace": trace, "marker": marker, "answer": answer, "kl": sampled_tokens(segments)}

    def _total(
        self,
        logprobs: Tensor,
        terms: dict[str, tuple[float, TokenTerm]],
        whole: WholeBatch | None,
        mean: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # It carries a gradient, so that the loss does even if every coefficient is 0.
        loss, reduced = masked_sum(logprobs, torch.zeros_like(logprobs, dtype=torch.bool)), {}
        masks = self._masks(whole.segments) if whole else {name: term.mask for name, (_, term) in terms.items()}
        factors = self.reduction.balance([masks[name] for name in terms], mean) if mean else [1.0] * len(terms)
        for factor, (name, (coef, term)) in zip(factors, terms.items(), strict=True):
            weights = whole.part(self.reduction.weights(masks[name], term.values.dtype), term.mask) if whole else None
            value = factor * self.reduction(term.values, term.mask, weights)
            reduced[name] = value.detach()
            if coef:  # 0 * infinity would be NaN
                loss = loss + coef * value
        return loss, reduced

    def _check(
        self, logprobs: Tensor, segments: Segments, advantages: Tensor, tensors: dict[str, Tensor | None]
    ) -> None:
        if self.kl_coef and tensors["ref_logprobs"] is None:
            raise InputError(
                f"kl_coef={self.kl_coef} needs ref_logprobs: give the module a reference, or set kl_coef=0."
            )
        if self.sampler_correction and tensors["sampling_logprobs"] is None:
            raise InputError(
                f"sampler_correction={self.sampler_correction} needs sampling_logprobs: ask the engine for log-probs, "
                "or set sampler_correction to null."
            )
        for name, tensor in {**tensors, "trace_mask": segments.trace_mask}.items():
            if tensor is not None:
                mend = "Put them in place with unpack_segment." if name == "token_weights" else ""
                check_same_shape(name, tensor, "logprobs", logprobs, mend)
        check_same_shape("advantages", advantages, "marker_emitted", segments.marker_emitted, "One for each rollout.")

    @staticmethod
    def _metrics(
        logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, clipped: Tensor, segments: Segments
    ) -> dict[str, Tensor]:
        ratio = importance_ratio(under(mask, logprobs), under(mask, old_logprobs))  # [N, C]
        return {
            "ratio_mean": masked_mean(ratio, mask),
            "ratio_max": torch.where(mask, ratio, 0).max(),
            "clip_share": masked_mean(clipped.to(ratio.dtype), mask),
            "answer_nll": masked_mean(-at_least_float32(logprobs), segments.answer_mask),
        }
