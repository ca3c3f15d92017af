from __future__ import annotations

import pytest
import torch

from nrt_lightning.errors import InputError
from nrt_lightning.functional import SequenceSumConstant
from nrt_lightning.losses import (
    CISPO,
    ClippedRatio,
    LossInputs,
    NRTLoss,
    PolicyGradient,
    TruncatedImportance,
    trace_term,
)
from nrt_lightning.structures import Segments

each = pytest.mark.parametrize("surrogate", [CISPO(), ClippedRatio(), PolicyGradient()], ids=repr)


def batch(seed=0, rows=4, width=6):
    generator = torch.Generator().manual_seed(seed)
    column = torch.arange(width)
    segments = Segments(
        (column < 3).expand(rows, width).clone(),
        (column == 3).expand(rows, width).clone(),
        (column > 3).expand(rows, width).clone(),
        torch.arange(rows) % 2 == 0,
    )
    logprobs = -torch.rand(3, rows, width, generator=generator) * 2
    return segments, logprobs, torch.randn(rows, generator=generator)


def loss_of(loss, segments, logprobs, old, sampler, advantages):
    inputs = LossInputs(
        logprobs=logprobs,
        old_logprobs=old,
        segments=segments,
        advantages=advantages,
        token_weights=torch.ones_like(old),
        sampling_logprobs=sampler,
    )
    return loss(inputs)


@each
def test_the_trace_loss_is_weighted_per_token(surrogate) -> None:
    segments, (now, old, sampler), advantages = batch()
    mask = segments.trace_mask
    weights = TruncatedImportance(1.5)(old, sampler, mask)
    plain = trace_term(now, old, advantages, mask, surrogate)
    weighted = trace_term(now, old, advantages, mask, surrogate, weights)
    expected = plain.values * (old - sampler).exp().clamp(max=1.5)
    torch.testing.assert_close(weighted.values[mask], expected[mask])
    assert torch.equal(plain.clipped, weighted.clipped), "clipping does not depend on the weights"


@each
def test_equal_probabilities_change_nothing(surrogate) -> None:
    segments, (now, old, _), advantages = batch()
    plain = NRTLoss(surrogate=surrogate)
    corrected = NRTLoss(surrogate=surrogate, sampler_correction=TruncatedImportance())
    found = loss_of(corrected, segments, now, old, old.clone(), advantages)
    assert torch.equal(found.loss, loss_of(plain, segments, now, old, None, advantages).loss)
    assert found.metrics["sampler_ratio_mean"] == 1
    assert found.metrics["sampler_capped_share"] == 0


def test_only_the_trace_term_is_weighted_and_only_sampled_tokens() -> None:
    """The weight of a forced marker is 1 for any log-prob of the sampler."""
    segments, (now, old, sampler), advantages = batch()
    loss = NRTLoss(
        reduction=SequenceSumConstant(1), forced_marker="authors", sampler_correction=TruncatedImportance(1e9)
    )
    found = loss_of(loss, segments, now, old, sampler, advantages)
    plain = loss_of(NRTLoss(reduction=SequenceSumConstant(1)), segments, now, old, None, advantages)
    assert found.terms["answer"] == plain.terms["answer"]
    assert found.terms["marker"] == plain.terms["marker"]
    other = torch.where(segments.marker_mask & ~segments.marker_emitted[:, None], 7.0, sampler)
    assert loss_of(loss, segments, now, old, other, advantages).loss == found.loss


def test_weights_are_capped_and_one_outside_the_trace() -> None:
    old, sampler = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-80.0, float("nan")]])
    weights = TruncatedImportance()(old, sampler, torch.tensor([[True, False]]))
    assert weights.tolist() == [[2.0, 1.0]]


def test_weights_are_constants() -> None:
    segments, (now, _, sampler), advantages = batch()
    now.requires_grad_()
    loss = NRTLoss(answer_coef=0, marker_coef=0, surrogate=PolicyGradient(), sampler_correction=TruncatedImportance())
    loss_of(loss, segments, now, now, sampler, advantages).loss.backward()
    sampled = segments.trace_mask | (segments.marker_mask & segments.marker_emitted[:, None])
    weights = (now.detach() - sampler).exp().clamp(max=2)
    expected = torch.where(sampled, -advantages[:, None] * weights / 4 / 512, 0)
    torch.testing.assert_close(now.grad, expected)


def test_missing_log_probs_and_a_cap_of_zero_are_refused() -> None:
    segments, (now, old, _), advantages = batch()
    with pytest.raises(InputError, match=r"sampler_correction=.*sampling_logprobs"):
        loss_of(NRTLoss(sampler_correction=TruncatedImportance()), segments, now, old, None, advantages)
    with pytest.raises(InputError, match=r"cap=0\.0"):
        TruncatedImportance(0.0)
