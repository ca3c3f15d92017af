from __future__ import annotations

import pytest
import torch

from nrt_lightning.functional import entropy, token_logprobs

INF = float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_token_logprobs_equal_log_softmax_in_at_least_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 5, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(1))
    result = token_logprobs(logits, ids)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = logits.double().softmax(-1).log().gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)


def test_token_logprobs_are_exact_for_large_logits() -> None:
    logits = torch.tensor([[10_000.0, 9_999.0, -INF]])
    result = token_logprobs(logits.expand(3, 3), torch.tensor([0, 1, 2]))
    # gather - logsumexp in float32 is off by 3e-4 here
    expected = torch.tensor([-0.3132616875, -1.3132616875, -INF])
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0.0)


def test_token_logprobs_are_never_positive() -> None:
    logits = torch.full((1, 4), -3.7)
    logits[0, 2] = 50.0
    assert token_logprobs(logits, torch.tensor([2])).item() == 0


def test_entropy_of_known_distributions() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, -INF, -INF, -INF], [0.0, 0.0, -INF, -INF]])
    torch.testing.assert_close(entropy(logits), torch.tensor([4.0, 1.0, 2.0]).log())


def test_entropy_gradient_is_finite_for_impossible_tokens() -> None:
    logits = torch.tensor([[1.0, 0.0, -INF]], requires_grad=True)
    entropy(logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_entropy_of_half_precision_is_computed_in_float32() -> None:
    assert entropy(torch.zeros(2, 3, dtype=torch.bfloat16)).dtype == torch.float32
