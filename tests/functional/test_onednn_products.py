"""Matrix products by oneDNN are those of torch."""

from __future__ import annotations

import pytest
import torch

from nrt_lightning.functional import products
from nrt_lightning.functional.linear_logprobs import linear_logprobs

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Products of any size are oneDNN's, on any CPU; the shapes of the first operands."""
    shapes: list[tuple[int, ...]] = []

    class Recorded:
        @staticmethod
        def _linear_pointwise(a: torch.Tensor, *rest: object) -> torch.Tensor:
            shapes.append(tuple(a.shape))
            return torch.ops.mkldnn._linear_pointwise(a, *rest)

    monkeypatch.setattr(products, "mkl_is_narrow", lambda: True)
    monkeypatch.setattr(products, "LEAST", 1)
    monkeypatch.setattr(products, "ONEDNN", Recorded)
    return shapes


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_products_of_transposed_and_sliced_matrices(onednn: list[tuple[int, ...]], rows: int) -> None:
    a, b, total = torch.randn(rows, 9), torch.randn(12, 9), torch.randn(9, 5)
    torch.testing.assert_close(products.product(a, b.T), a @ b.T)
    torch.testing.assert_close(products.product(a[:, 2:6], b[3:7]), a[:, 2:6] @ b[3:7])
    torch.testing.assert_close(products.rounded_product(a, b.T), a @ b.T)
    more = torch.randn(rows, 5)
    expected = total + a.T @ more
    products.add_product(total, a.T, more)
    torch.testing.assert_close(total, expected)
    assert len(onednn) == (4 if rows else 3), "nothing is added by an empty product"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probs_and_gradients_are_those_of_other_products(
    onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 16, dtype=dtype), torch.randn(40, 16, dtype=dtype)
    ids = torch.randint(40, (7,))

    def found() -> list[torch.Tensor]:
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        logprobs, entropies = linear_logprobs(h, w, ids, chunk=4)
        logprobs.sum().backward()
        return [logprobs.detach(), entropies.detach(), h.grad, w.grad]

    wide = found()
    assert onednn
    monkeypatch.setattr(products, "mkl_is_narrow", lambda: False)
    for one, other in zip(wide, found(), strict=True):
        torch.testing.assert_close(one, other)


def test_other_dtypes_are_left_to_torch(onednn: list[tuple[int, ...]]) -> None:
    a, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    assert torch.equal(products.product(a, b), a @ b)
    assert not onednn
