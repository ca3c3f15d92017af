from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning.errors import InputError
from nrt_lightning.losses import CISPO, ClippedRatio, PolicyGradient, importance_ratio

SURROGATES = [CISPO(), ClippedRatio(), PolicyGradient()]
each = pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
LOGPROB = st.floats(-5, 0)


def one_token(surrogate, logprob: float, old: float, advantage: float) -> tuple[float, bool, float]:
    """Loss, clipped, and gradient of one token."""
    x = torch.tensor([[logprob]], dtype=torch.float64, requires_grad=True)
    out = surrogate(x, torch.tensor([[old]], dtype=torch.float64), torch.tensor([[advantage]], dtype=torch.float64))
    (grad,) = torch.autograd.grad(out.loss.sum(), x)
    return out.loss.item(), bool(out.clipped.item()), grad.item()


@given(LOGPROB, LOGPROB, st.floats(-2, 2))
@settings(deadline=None, max_examples=80)
def test_cispo_equals_its_formula(logprob, old, advantage) -> None:
    ratio = math.exp(logprob - old)
    weight = min(max(ratio, 0.8), 1.28)
    loss, clipped, grad = one_token(CISPO(), logprob, old, advantage)
    assert loss == pytest.approx(-advantage * weight * logprob)
    assert grad == pytest.approx(-advantage * weight)  # the weight is a constant
    assert clipped == ((advantage > 0 and ratio > 1.28) or (advantage < 0 and ratio < 0.8))


@given(LOGPROB, LOGPROB, st.floats(-2, 2))
@settings(deadline=None, max_examples=80)
def test_clipped_ratio_equals_ppo(logprob, old, advantage) -> None:
    ratio = math.exp(logprob - old)
    loss, clipped, grad = one_token(ClippedRatio(), logprob, old, advantage)
    assert loss == pytest.approx(-min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage))
    assert grad == pytest.approx(0 if clipped else -ratio * advantage)


def test_cispo_mask_and_clamp_are_separate_bounds() -> None:
    wide = CISPO(ratio_low=0.0, ratio_high=10.0)
    loss, clipped, _ = one_token(wide, math.log(0.8), math.log(0.2), -1.0)  # ratio 4
    assert (loss, clipped) == (pytest.approx(4 * math.log(0.8)), False)
    never = CISPO(drop_below=0.0, drop_above=math.inf)
    assert not one_token(never, math.log(0.8), math.log(0.2), 1.0)[1]
    assert not one_token(never, math.log(0.2), math.log(0.8), -1.0)[1]


@each
@pytest.mark.parametrize("advantage", [-1.5, 0.0, 2.0])
def test_on_policy_every_surrogate_has_the_policy_gradient(surrogate, advantage) -> None:
    logprobs = torch.tensor([[-0.3, -2.0]], requires_grad=True)
    out = surrogate(logprobs, logprobs, torch.tensor([[advantage]]))  # the same tensor, detached
    (grad,) = torch.autograd.grad(out.loss.sum(), logprobs)
    torch.testing.assert_close(grad, torch.full((1, 2), -advantage))
    assert not out.clipped.any()


@each
def test_no_gradient_into_the_old_policy(surrogate) -> None:
    logprobs = torch.tensor([[-0.3]], requires_grad=True)
    old = torch.tensor([[-0.4]], requires_grad=True)
    surrogate(logprobs, old, torch.tensor([[1.0]])).loss.sum().backward()
    assert old.grad is None
    assert logprobs.grad is not None


@each
@pytest.mark.parametrize("difference", [500.0, -500.0])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_policies_far_apart_stay_finite(surrogate, difference, advantage) -> None:
    logprobs = torch.tensor([[min(difference, 0.0)]], requires_grad=True)
    out = surrogate(logprobs, logprobs.detach() - difference, torch.tensor([[advantage]]))
    (grad,) = torch.autograd.grad(out.loss.sum(), logprobs)
    assert out.loss.isfinite().all()
    assert grad.isfinite().all()


@each
def test_half_precision_is_computed_in_float32(surrogate) -> None:
    logprobs = torch.tensor([[-0.3]], dtype=torch.bfloat16)
    assert surrogate(logprobs, logprobs, torch.tensor([[1.0]])).loss.dtype == torch.float32


def test_ratio_is_one_on_policy() -> None:
    logprobs = torch.tensor([-0.1, -7.0])
    assert (importance_ratio(logprobs, logprobs) == 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CISPO(ratio_low=2.0), r"ratio_high=1\.28.*ratio_low=2\.0"),
        (lambda: CISPO(drop_below=-1.0), r"drop_below=-1\.0"),
        (lambda: CISPO(drop_above=float("nan")), "drop_above=nan"),
        (lambda: ClippedRatio(clip_low=-0.2), r"clip_low=-0\.2"),
    ],
)
def test_impossible_bounds_are_refused(make, message) -> None:
    with pytest.raises(InputError, match=message):
        make()
