"""The loss of Native Reasoning Training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    check_at_least,
    check_choice,
    masked_mean,
    masked_sum,
)
from nrt_lightning.losses.entropy import EntropyBonus
from nrt_lightning.losses.inputs import LossInputs, WholeBatch
from nrt_lightning.losses.loss_metrics import ratio_metrics, token_counts
from nrt_lightning.losses.sampler_mismatch import SamplerCorrection
from nrt_lightning.losses.surrogates import CISPO, Surrogate
from nrt_lightning.losses.terms import (
    FORCED_MARKER_CHOICES,
    ForcedMarker,
    TokenTerm,
    answer_term,
    entropy_term,
    forced_marker_tokens,
    kl_term,
    marker_term,
    sampled_tokens,
    trace_term,
    trace_tokens,
)
from nrt_lightning.structures import LossOutput, Segments


@dataclass
class NRTLoss:
    """`trace_coef * trace + marker_coef * marker + answer_coef * answer + kl_coef * KL` (arXiv 2602.11549).

    - trace: the surrogate on the sampled tokens, with the advantages.
    - marker: `-logprobs` of the forced markers, or of all markers.
    - answer: `-token_weights * logprobs` of the answer tokens.
    - KL: KL(policy || reference) on the sampled tokens.

    Each term is reduced separately. A term without tokens is 0 with a zero gradient. A term with coefficient 0 is
    reported but not part of the loss. Log-probs outside the masks can be anything and have gradient 0.

    Args:
        surrogate: per-token loss of the trace.
        reduction: reduction of per-token values to a scalar.
        trace_coef: weight of the trace term.
        marker_coef: weight of the marker term.
        answer_coef: weight of the answer term.
        kl_coef: weight of the KL term; requires a reference if not 0.
        kl: estimator of the KL.
        forced_marker: "excluded" keeps forced markers out of the trace term; "authors" includes them, so that a
            negative advantage makes the marker less likely.
        marker_rows: rollouts with a marker term: "forced" (the marker was forced) or "all". With `suppress_eos` every
            trace ends with the marker, and only "all" teaches the policy to prefer it to the end token.
        answer_rows: rollouts with an answer term: "all" or "emitted" (the policy emitted the marker). VeriFree and JEPO
            (arXiv 2505.21493, 2503.19618) train no answer after a forced marker.
        sampler_correction: importance weights for a sampler whose probabilities differ from the trainer's; null for 1.
        entropy_bonus: a bonus for the entropy of the sampled tokens' distributions; null for none.

    Raises:
        InputError: if a coefficient is negative, or `forced_marker`, `marker_rows` or `answer_rows` is unknown.

    Example:
        >>> import torch
        >>> from nrt_lightning.structures import Segments
        >>> mask = lambda *row: torch.tensor([row], dtype=torch.bool)
        >>> logprobs = torch.tensor([[-1.0, -0.5, -0.25]], requires_grad=True)
        >>> inputs = LossInputs(
        ...     logprobs=logprobs,
        ...     old_logprobs=logprobs,
        ...     segments=Segments(mask(1, 0, 0), mask(0, 1, 0), mask(0, 0, 1), marker_emitted=torch.tensor([True])),
        ...     advantages=torch.tensor([2.0]),
        ...     token_weights=torch.ones(1, 3),
        ... )
        >>> out = NRTLoss(reduction=SequenceSumConstant(1))(inputs)
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
    sampler_correction: SamplerCorrection | None = None
    entropy_bonus: EntropyBonus | None = None

    def __post_init__(self) -> None:
        for name in ("trace_coef", "marker_coef", "answer_coef", "kl_coef"):
            check_at_least(name, getattr(self, name), 0)
        check_choice("forced_marker", self.forced_marker, FORCED_MARKER_CHOICES)
        check_choice("marker_rows", self.marker_rows, ("forced", "all"))
        check_choice("answer_rows", self.answer_rows, ("all", "emitted"))

    def __call__(
        self,
        inputs: LossInputs,
        *,
        whole: WholeBatch | None = None,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> LossOutput:
        """Compute the loss of N rollouts.

        Args:
            inputs: the rollouts.
            whole: the batch, if the inputs are a micro-batch of it; the losses of its micro-batches then add up to the
                loss of the batch, unless `needs_full_batch`.
            mean: averages a tensor over all processes; the mean of their losses is then the loss of all rollouts. None
                for a single process.

        Returns:
            The loss; the reduced terms `trace`, `marker`, `answer` (`kl` and `entropy` if they are part of it) before
            their coefficients; the metrics `ratio_mean`, `ratio_max` and `clip_share` of the trace tokens, `answer_nll`
            in nats, `kl` in nats if a reference is given, `entropy` and `entropy_coef` with an `entropy_bonus`, and
            those of the `sampler_correction`. All but the loss are detached.

        Raises:
            InputError: if shapes differ, or log-probs are missing that `kl_coef` or `sampler_correction` requires.
        """
        self._check(inputs)
        masks = self._masks(inputs.segments)
        importance, mismatch = self._importance(inputs, masks["kl"])
        logprobs, old_logprobs = inputs.logprobs, inputs.old_logprobs
        trace = trace_term(logprobs, old_logprobs, inputs.advantages, masks["trace"], self.surrogate, importance)
        terms = {
            "trace": trace,
            "marker": marker_term(logprobs, masks["marker"]),
            "answer": answer_term(logprobs, inputs.token_weights, masks["answer"]),
        }
        metrics = ratio_metrics(inputs, masks["trace"], trace.clipped) | mismatch
        if inputs.ref_logprobs is not None:
            kl = kl_term(logprobs, inputs.ref_logprobs, masks["kl"], self.kl)
            metrics["kl"] = masked_mean(kl.values.detach(), kl.mask)
            if self.kl_coef:
                terms["kl"] = kl
        if self.entropy_bonus is not None and inputs.entropy is not None:
            terms["entropy"] = entropy_term(inputs.entropy, masks["kl"])
            metrics["entropy"] = masked_mean(inputs.entropy.detach(), masks["kl"])
            metrics["entropy_coef"] = metrics["entropy"].new_tensor(self.entropy_bonus.weight)
        out = self._total(logprobs, terms, whole, mean)
        out.metrics, out.counts = metrics, token_counts(metrics, inputs.segments, masks)
        return out

    def sizes(self, steps: Sequence[Segments], mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """The divisors of the loss's parts, summed over micro-batches; the mean over processes.

        Args:
            steps: the tokens that carry a loss, of each micro-batch.
            mean: averages a tensor over all processes.
        """
        found = [self._masks(segments) for segments in steps]
        names = [*found[0]]
        masks = [[self.reduction.count(masks[name]).float() for name in names] for masks in found]
        totals = mean(torch.stack([torch.stack(counts) for counts in masks]).sum(dim=0))  # [terms]
        sizes = dict(zip(names, totals, strict=True))
        return sizes if self.reduction.counts_tokens else {"loss": sizes["trace"]}

    @property
    def needs_full_batch(self) -> bool:
        """True if off-policy the loss of a rollout depends on the log-probs of the others in the batch.

        This is the case if clipped tokens are dropped from the denominator of a mean: which tokens are clipped is known
        only after all rollouts have been scored.
        """
        return self.surrogate.drops_clipped and self.reduction.counts_tokens

    def _check(self, inputs: LossInputs) -> None:
        if self.kl_coef and inputs.ref_logprobs is None:
            raise InputError(f"kl_coef={self.kl_coef} requires ref_logprobs. Set a reference, or kl_coef=0.")
        if self.sampler_correction and inputs.sampling_logprobs is None:
            raise InputError(
                f"sampler_correction={self.sampler_correction} requires sampling_logprobs. Use an engine that returns "
                "log-probs, or set sampler_correction to null."
            )
        if self.entropy_bonus and inputs.entropy is None:
            raise InputError(f"entropy_bonus={self.entropy_bonus} requires entropy. Pass that of the scores.")
        inputs.check_shapes()

    def _masks(self, segments: Segments) -> dict[str, Tensor]:
        """The tokens of each term. `[N, C]`"""
        marker = segments.marker_mask if self.marker_rows == "all" else forced_marker_tokens(segments)
        trace = trace_tokens(segments, self.forced_marker)
        answer = segments.answer_mask
        if self.answer_rows == "emitted":
            answer = answer & segments.marker_emitted.unsqueeze(1)
        sampled = sampled_tokens(segments)
        return {"trace": trace, "marker": marker, "answer": answer, "kl": sampled, "entropy": sampled}

    def _importance(self, inputs: LossInputs, sampled: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        given = inputs.importance
        metrics = {} if given is None else {"importance_mean": masked_mean(given, sampled)}
        if self.sampler_correction is None or inputs.sampling_logprobs is None:
            return given, metrics
        old = inputs.old_logprobs if inputs.drawn_logprobs is None else inputs.drawn_logprobs
        weights = self.sampler_correction(old, inputs.sampling_logprobs, sampled)  # [N, C]
        metrics |= self.sampler_correction.metrics(old, inputs.sampling_logprobs, sampled)
        return weights if given is None else weights * given, metrics

    def _total(
        self,
        logprobs: Tensor,
        terms: dict[str, TokenTerm],
        whole: WholeBatch | None,
        mean: Callable[[Tensor], Tensor] | None,
    ) -> LossOutput:
        # This 0 has a gradient, so that the loss has one even if all coefficients are 0.
        loss, reduced = masked_sum(logprobs, torch.zeros_like(logprobs, dtype=torch.bool)), {}
        coefs = {"trace": self.trace_coef, "marker": self.marker_coef, "answer": self.answer_coef, "kl": self.kl_coef}
        coefs["entropy"] = self.entropy_bonus.weight if self.entropy_bonus else 0.0
        masks = self._masks(whole.segments) if whole else {name: term.mask for name, term in terms.items()}
        factors, sizes = self.reduction.balance([masks[name] for name in terms], mean or torch.clone)
        parts = {}
        for factor, (name, term) in zip(factors, terms.items(), strict=True):
            weights = whole.part(self.reduction.weights(masks[name], term.values.dtype), term.mask) if whole else None
            value = factor * self.reduction(term.values, term.mask, weights)
            reduced[name] = value.detach()
            if coefs[name]:  # 0 * infinity would be NaN
                parts[name] = coefs[name] * value
                loss = loss + parts[name]
        if not (parts and self.reduction.counts_tokens):  # all have the same divisor
            return LossOutput(loss, reduced, parts={"loss": loss}, sizes={"loss": sizes[0]})
        return LossOutput(loss, reduced, parts=parts, sizes=dict(zip(terms, sizes, strict=True)))
