"""Log-probs under a frozen output head against dense logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nrt_lightning.functional import entropy, token_logprobs
from nrt_lightning.functional.linear_logprobs import OwnRow, linear_logprobs

POSITIONS, VOCABULARY, WIDTH, OWN = 23, 101, 16, 5


def case(dtype: torch.dtype, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Hidden states, a frozen weight, tokens, a frozen bias and a row of its own."""
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    ids = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    ids[::4] = OWN
    hidden, row = tensor(POSITIONS, WIDTH).requires_grad_(), tensor(WIDTH).requires_grad_()
    return hidden, tensor(VOCABULARY, WIDTH), ids, tensor(VOCABULARY) if bias else None, row


class Products(TorchDispatchMode):
    """The dtypes of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.mm:
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("rows", [None, 10])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_same_as_dense(
    chunk: int, rows: int | None, bias: bool, own: bool, dtype: torch.dtype, tolerance: float
) -> None:
    hidden, weight, ids, b, row = case(dtype, bias=bias)
    leaves = [hidden, row] if own else [hidden]
    upstream = torch.linspace(-2, 3, len(ids), dtype=dtype)
    merged = weight.index_copy(0, torch.tensor([OWN]), row.unsqueeze(0)) if own else weight
    logits = nn.functional.linear(hidden, merged, b)
    dense = token_logprobs(logits, ids)
    expected = torch.autograd.grad((dense * upstream).sum(), leaves)
    logprobs, entropies = linear_logprobs(
        hidden, weight, ids, b, chunk=chunk, rows=rows, own=OwnRow(OWN, row) if own else None
    )
    torch.testing.assert_close(logprobs, dense, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(entropies, entropy(logits), atol=tolerance, rtol=tolerance)
    assert not entropies.requires_grad
    got = torch.autograd.grad((logprobs * upstream).sum(), leaves)
    for a, e in zip(got, expected):
        torch.testing.assert_close(a, e, atol=tolerance * 10, rtol=tolerance * 10)


@pytest.mark.parametrize("rows", [None, 10])
def test_gradients_of_16_bit_weights_are_rounded_twice(rows: int | None) -> None:
    """As those of any linear layer: the product, and the product with what comes after it."""
    hidden, weight, ids, b, row = case(torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in (hidden, row)]
    merged = weight.double().index_copy(0, torch.tensor([OWN]), exact[1].unsqueeze(0))
    upstream = torch.linspace(-2, 3, len(ids))
    dense = token_logprobs(exact[0] @ merged.T + b.double(), ids)
    expected = torch.autograd.grad((dense * upstream).sum(), exact)
    logprobs, _ = linear_logprobs(hidden, weight, ids, b, chunk=4, rows=rows, own=OwnRow(OWN, row))
    torch.testing.assert_close(logprobs.double(), dense, atol=2e-5, rtol=2e-5)
    got = torch.autograd.grad((logprobs * upstream).sum(), [hidden, row])
    for found, value in zip(got, expected):
        assert found.dtype == torch.bfloat16
        assert (found.double() - value).norm() / value.norm() < 0.003, "two roundings to bfloat16"


def test_the_gradient_of_a_token_that_is_almost_certain_is_not_lost_in_16_bits() -> None:
    """It is the difference of a row and a mean of rows that is almost this row."""
    hidden, weight, _, _, _ = case(torch.bfloat16, bias=False)
    hidden = (weight[:POSITIONS] * 3).requires_grad_()
    exact = hidden.detach().double().requires_grad_()
    dense = token_logprobs(exact @ weight.double().T, ids := torch.arange(POSITIONS))
    sure = (dense > -1e-2) & (dense < -1e-5)
    assert sure.sum() > 3
    (expected,) = torch.autograd.grad(dense.sum(), exact)
    (got,) = torch.autograd.grad(linear_logprobs(hidden, weight, ids)[0].sum(), hidden)
    errors = (got.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert errors[sure].max() < 0.01


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_products_and_none_in_the_backward_pass(dtype: torch.dtype, keep: bool) -> None:
    """Where the sum is rounded, it is a product in bfloat16: on CPUs those in float32 take four times as long."""
    hidden, weight, ids, b, _ = case(dtype)
    with Products() as products:
        logprobs, _ = linear_logprobs(hidden, weight, ids, b, keep=keep)
    assert products.dtypes == [torch.float32, dtype]
    with Products() as products:
        logprobs.sum().backward()
    assert products.dtypes == []
    with Products() as products, torch.no_grad():
        linear_logprobs(hidden, weight, ids, b, keep=keep)
    assert products.dtypes == [torch.float32], "without gradient there is one"


def test_a_row_alone_can_be_trained() -> None:
    hidden, weight, ids, b, row = case(torch.float64)
    logprobs, _ = linear_logprobs(hidden.detach(), weight, ids, b, own=OwnRow(OWN, row))
    (got,) = torch.autograd.grad(logprobs.sum(), row)
    merged = weight.index_copy(0, torch.tensor([OWN]), row.unsqueeze(0))
    (expected,) = torch.autograd.grad(token_logprobs(hidden.detach() @ merged.T + b, ids).sum(), row)
    torch.testing.assert_close(got, expected)


def test_no_positions_and_an_impossible_token() -> None:
    hidden, weight, ids, b, row = case(torch.float32)
    logprobs, _ = linear_logprobs(hidden[:0], weight, ids[:0], b, own=OwnRow(OWN, row))
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    b = b.index_fill(0, torch.tensor([7]), -torch.inf)
    logprobs, entropies = linear_logprobs(hidden, weight, ids.where(ids != 7, 8), b, chunk=8)
    (grad,) = torch.autograd.grad(logprobs.sum(), [hidden])
    assert torch.isfinite(entropies).all()
    assert torch.isfinite(grad).all()
