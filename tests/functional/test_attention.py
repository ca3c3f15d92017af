"""Attention has the gradient of torch's kernel."""

import pytest
import torch
import torch.nn.functional as F

from nrt_lightning.functional.attention import attention

KINDS = [torch.float32, torch.bfloat16]


def inputs(queries: int, keys: int, *, kind: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries, keys and values, and a mask whose first column is seen by all."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, 3, length, 8, generator=generator).to(kind) for length in (queries, keys, keys)]
    hidden = torch.rand(2, 1, queries, keys, generator=generator) < 0.4
    hidden[..., 0] = False
    return made, torch.zeros(2, 1, queries, keys, dtype=kind).masked_fill_(hidden, -torch.inf)


def gradients(function, values: list[torch.Tensor], mask: torch.Tensor, scale: float | None) -> list[torch.Tensor]:
    """The output, and the gradients of queries, keys and values."""
    leaves = [value.clone().requires_grad_() for value in values]
    out = function(*leaves, mask, 0.0, scale=scale)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def torchs(query, key, value, mask, dropout, scale=None):
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("in_cache", [2**18, 1])
def test_gradients_are_as_near_to_the_exact_ones_as_those_of_torch(
    kind: torch.dtype, scale: float | None, in_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nrt_lightning.functional.attention.IN_CACHE", in_cache)
    values, mask = inputs(5, 9, kind=kind)
    exact = gradients(torchs, [value.double() for value in values], mask.double(), scale)
    for mine, torchs_own, right in zip(
        gradients(attention, values, mask, scale), gradients(torchs, values, mask, scale), exact, strict=True
    ):
        assert mine.dtype == kind
        error, bound = (mine.double() - right).norm(), (torchs_own.double() - right).norm()
        assert error <= 1.5 * bound + 1e-6 * right.norm()


def test_without_a_gradient_nothing_is_kept() -> None:
    values, mask = inputs(3, 4, kind=torch.bfloat16)
    assert attention(*values, mask).grad_fn is None
    with torch.no_grad():
        assert attention(*(value.requires_grad_() for value in values), mask).grad_fn is None


def test_heads_that_share_keys_get_the_sum_of_their_gradients() -> None:
    values, mask = inputs(4, 6, kind=torch.bfloat16)
    leaves = [value[:, :1].clone().requires_grad_() for value in values]
    attention(*(leaf.repeat_interleave(3, dim=1) for leaf in leaves), mask).float().sum().backward()
    expected = [value[:, :1].double().requires_grad_() for value in values]
    torchs(*(leaf.repeat_interleave(3, dim=1) for leaf in expected), mask.double(), 0.0).sum().backward()
    for mine, right in zip(leaves, expected, strict=True):
        torch.testing.assert_close(mine.grad.double(), right.grad, rtol=0.02, atol=0.02)


def test_a_weight_of_almost_one_loses_no_accuracy() -> None:
    """The gradient of its score is a difference of two numbers that are almost equal."""
    values, mask = inputs(5, 9, kind=torch.bfloat16)
    values[0] = values[1][:, :, :5] * 4  # queries that see one key almost alone
    exact = gradients(torchs, [value.double() for value in values], torch.zeros_like(mask).double(), 1.0)
    mine, torchs_own = (gradients(f, values, torch.zeros_like(mask), 1.0) for f in (attention, torchs))
    for found, others, right in zip(mine[1:3], torchs_own[1:3], exact[1:3], strict=True):  # queries and keys
        assert (found.double() - right).norm() <= 1.5 * (others.double() - right).norm()
