from __future__ import annotations

import pytest
import torch

from nrt_lightning.functional import K1, K2, K3

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
KL = (POLICY * (POLICY / REFERENCE).log()).sum()  # KL(policy || reference)


def expectation(estimator, logits: torch.Tensor) -> torch.Tensor:
    """The expected estimate over tokens sampled from the policy."""
    logprobs = logits.log_softmax(0)
    return (logprobs.exp().detach() * estimator(logprobs, REFERENCE.log())).sum()


@pytest.mark.parametrize("estimator", [K1(), K3()], ids=repr)
def test_unbiased(estimator) -> None:
    torch.testing.assert_close(expectation(estimator, POLICY.log()), KL)


def test_k2_is_biased_but_close_for_similar_models() -> None:
    near = 0.02 * POLICY + 0.98 * REFERENCE
    truth = (near * (near / REFERENCE).log()).sum()
    assert expectation(K2(), POLICY.log()) != pytest.approx(KL.item(), rel=0.01)
    assert expectation(K2(), near.log()).item() == pytest.approx(truth.item(), rel=0.02)


@pytest.mark.parametrize("estimator", [K1(), K2(), K3()], ids=repr)
def test_gradient_as_a_loss(estimator) -> None:
    logits = POLICY.log().requires_grad_()
    (grad,) = torch.autograd.grad(expectation(estimator, logits), logits)
    logprobs = logits.log_softmax(0)
    truth = {
        "K1()": 0 * logits.sum(),  # no signal
        "K2()": (logprobs.exp() * (logprobs - REFERENCE.log())).sum(),  # KL(policy || reference)
        "K3()": (REFERENCE * (REFERENCE.log() - logprobs)).sum(),  # KL(reference || policy)
    }[repr(estimator)]
    (expected,) = torch.autograd.grad(truth, logits)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("estimator", [K2(), K3()], ids=repr)
def test_never_negative_and_zero_only_if_the_models_agree(estimator) -> None:
    logprobs = torch.linspace(-8, 0, 50)
    values = estimator(logprobs, torch.full_like(logprobs, -3.0))
    assert (values > 0).all()
    assert (estimator(logprobs, logprobs) == 0).all()


def test_k3_does_not_cancel_for_small_differences() -> None:
    value = K3()(torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-1.0 + 1e-7], dtype=torch.float64))
    assert value.item() == pytest.approx(5e-15, rel=1e-4, abs=0)  # exp(r) - 1 - r is off by percents


@pytest.mark.parametrize("estimator", [K1(), K2(), K3()], ids=repr)
def test_half_precision_is_computed_in_float32(estimator) -> None:
    assert estimator(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
