import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nrt_lightning.functional import entropy, token_logprobs
from nrt_lightning.functional.linear_logprobs import OwnRow, linear_logprobs


def case(dtype, positions=23, vocabulary=101, bias=True):
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    ids = torch.randint(vocabulary, (positions,), generator=generator)
    return tensor(positions, 16), tensor(vocabulary, 16), ids, tensor(vocabulary) if bias else None


@pytest.mark.parametrize("chunk", [1, 7, 23, 1000])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_same_as_dense(chunk, bias, keep, dtype, tolerance):
    hidden, weight, ids, b = case(dtype, bias=bias)
    upstream = torch.linspace(-2, 3, len(ids), dtype=dtype)
    leaves = [t for t in (hidden, weight, b) if t is not None]
    logits = torch.nn.functional.linear(hidden, weight, b)
    dense = token_logprobs(logits, ids)
    expected = torch.autograd.grad((dense * upstream).sum(), leaves)
    logprobs, entropies = linear_logprobs(hidden, weight, ids, b, chunk=chunk, keep=keep)
    got = torch.autograd.grad((logprobs * upstream).sum(), leaves)
    torch.testing.assert_close(logprobs, dense, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(entropies, entropy(logits), atol=tolerance, rtol=tolerance)
    assert not entropies.requires_grad
    for a, e in zip(got, expected):
        torch.testing.assert_close(a, e, atol=tolerance * 10, rtol=tolerance * 10)


def test_half_precision_gives_float32_values_and_half_gradients():
    hidden, weight, ids, b = case(torch.bfloat16)
    logprobs, _ = linear_logprobs(hidden, weight, ids, b, chunk=8)
    assert logprobs.dtype == torch.float32
    logprobs.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    exact = token_logprobs(hidden.double() @ weight.double().T + b.double(), ids)
    torch.testing.assert_close(logprobs.double(), exact, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("rows", [None, 10])
@pytest.mark.parametrize("keep", [True, False])
def test_16_bit_weights_give_what_exact_products_of_them_give(rows, keep):
    """Logits are not rounded, and gradients are rounded once: not at every chunk."""
    hidden, weight, ids, b = case(torch.bfloat16, positions=600)
    row = torch.linspace(-1, 1, 16, requires_grad=True)
    leaves, exact = [hidden, weight, b], [t.detach().double().requires_grad_() for t in (hidden, weight, b)]
    merged = exact[1].index_copy(0, torch.tensor([95]), row.detach().bfloat16().double().unsqueeze(0))
    upstream = torch.linspace(-2, 3, len(ids))
    dense = token_logprobs(exact[0] @ merged.T + exact[2], ids)
    expected = torch.autograd.grad((dense * upstream).sum(), exact)
    logprobs, entropies = linear_logprobs(hidden, weight, ids, b, chunk=4, keep=keep, rows=rows, own=OwnRow(95, row))
    torch.testing.assert_close(logprobs.double(), dense, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(entropies.double(), entropy(exact[0] @ merged.T + exact[2]), atol=2e-5, rtol=2e-5)
    got = torch.autograd.grad((logprobs * upstream).sum(), [*leaves, row])
    for found, value in zip(got, expected):
        assert found.dtype == torch.bfloat16
        assert (found.double() - value).norm() / value.norm() < 0.0025, "one rounding to bfloat16"
    assert got[3].dtype == torch.float32


def test_16_bit_logits_are_not_rounded_under_autocast():
    hidden, weight, ids, _ = case(torch.float32, bias=False)
    half = [t.detach().bfloat16().double() for t in (hidden, weight)]
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, _ = linear_logprobs(hidden, weight, ids)
        logprobs.sum().backward()
    torch.testing.assert_close(logprobs.double(), token_logprobs(half[0] @ half[1].T, ids), atol=2e-5, rtol=2e-5)


def test_autocast_is_honored():
    hidden, weight, ids, _ = case(torch.float32, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, _ = linear_logprobs(hidden, weight, ids)
    logprobs.sum().backward()
    assert weight.grad.dtype == torch.float32
    half = token_logprobs((hidden.bfloat16() @ weight.bfloat16().T), ids)
    torch.testing.assert_close(logprobs, half, atol=1e-2, rtol=1e-2)


def test_no_tensor_holds_all_logits():
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return out

    hidden, weight, ids, _ = case(torch.float32, positions=640, vocabulary=500, bias=False)
    with Largest() as largest:
        linear_logprobs(hidden, weight, ids, chunk=32)[0].sum().backward()
    assert largest.size <= 32 * 500


def test_no_positions():
    hidden, weight, ids, _ = case(torch.float32, positions=0, bias=False)
    logprobs, entropies = linear_logprobs(hidden, weight, ids)
    assert logprobs.shape == entropies.shape == (0,)


def test_an_impossible_token_has_a_finite_entropy_and_gradient():
    hidden, weight, ids, b = case(torch.float32)
    b = b.detach().index_fill(0, torch.tensor([5]), -torch.inf)
    ids = ids.where(ids != 5, 6)
    for keep in (True, False):
        logprobs, entropies = linear_logprobs(hidden, weight, ids, b, chunk=8, keep=keep)
        (grad,) = torch.autograd.grad(logprobs.sum(), [hidden])
        assert torch.isfinite(entropies).all()
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_a_separate_row_replaces_the_row_of_the_weight(bias, keep):
    hidden, weight, ids, b = case(torch.float64, bias=bias)
    ids[::4] = 5
    row = torch.randn(16, dtype=torch.float64, requires_grad=True)
    leaves = [t for t in (hidden, weight, b, row) if t is not None]
    upstream = torch.linspace(-2, 3, len(ids), dtype=torch.float64)
    merged = weight.index_copy(0, torch.tensor([5]), row.unsqueeze(0))
    dense = token_logprobs(torch.nn.functional.linear(hidden, merged, b), ids)
    expected = torch.autograd.grad((dense * upstream).sum(), leaves)
    logprobs, _ = linear_logprobs(hidden, weight, ids, b, chunk=7, keep=keep, own=OwnRow(5, row))
    got = torch.autograd.grad((logprobs * upstream).sum(), leaves)
    torch.testing.assert_close(logprobs, dense)
    for a, e in zip(got, expected):
        torch.testing.assert_close(a, e)
