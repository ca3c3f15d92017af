from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning.errors import InputError
from nrt_lightning.functional import (
    SequenceSumConstant,
    TokenMean,
    masked_mean,
    masked_sum,
    pack_segment,
    unpack_segment,
)

GARBAGE = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e38])


@st.composite
def segments(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Values `[N, C]`, and a mask with one contiguous segment per row, possibly empty."""
    width = draw(st.integers(1, 7))
    rows = draw(st.lists(st.tuples(st.integers(0, width), st.integers(0, width)), min_size=1, max_size=5))
    mask = torch.tensor([[min(a, b) <= c < max(a, b) for c in range(width)] for a, b in rows])
    return torch.arange(1.0, mask.numel() + 1).view_as(mask), mask


@given(segments(), GARBAGE)
@settings(deadline=None, max_examples=60)
def test_garbage_outside_the_mask_changes_neither_value_nor_gradient(case, garbage) -> None:
    values, mask = case
    dirty = values.masked_fill(~mask, garbage).requires_grad_()
    for function in (masked_sum, masked_mean):
        for dim in (None, 0, 1):
            result = function(dirty, mask, dim)
            assert torch.equal(result, function(values, mask, dim))
            (grad,) = torch.autograd.grad(result.sum(), dirty)
            assert (grad[~mask] == 0).all()
            assert (grad[mask] > 0).all()


def test_mean_over_an_empty_mask_is_zero_with_zero_gradient() -> None:
    values = torch.full((2, 3), float("nan"), requires_grad=True)
    result = masked_mean(values, torch.zeros(2, 3, dtype=torch.bool))
    result.backward()
    assert result == 0
    assert values.grad is not None
    assert (values.grad == 0).all()


@given(segments(), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_pack_equals_a_loop_over_rows_and_unpack_is_its_inverse(case, extra) -> None:
    values, mask = case
    width = int(mask.sum(1).max()) + extra
    packed = pack_segment(values, mask, width)
    expected = torch.zeros(len(values), width)
    for row in range(len(values)):
        segment = values[row][mask[row]]
        expected[row, : len(segment)] = segment
    assert torch.equal(packed, expected)
    assert torch.equal(unpack_segment(packed, mask), values.masked_fill(~mask, 0))
    assert torch.equal(pack_segment(values, mask), packed[:, : width - extra])


def test_packing_works_for_ids_and_masks() -> None:
    mask = torch.tensor([[False, True, True], [True, False, False]])
    assert torch.equal(pack_segment(mask, mask), torch.tensor([[True, True], [True, False]]))
    assert torch.equal(pack_segment(torch.arange(6).view(2, 3), mask), torch.tensor([[1, 2], [3, 0]]))


def test_gradient_passes_through_packing_and_unpacking() -> None:
    mask = torch.tensor([[False, True, True], [False, False, False]])
    values = torch.full((2, 3), float("nan")).masked_fill(mask, 1.0).requires_grad_()
    packed = pack_segment(values, mask, 2)
    (packed * torch.tensor([2.0, 3.0])).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, torch.tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    packed = torch.ones(2, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(unpack_segment(packed, mask).sum(), packed)
    assert torch.equal(grad, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_empty_segments_pack_to_width_zero_and_back() -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    packed = pack_segment(torch.ones(2, 3), mask)
    assert packed.shape == (2, 0)
    assert torch.equal(unpack_segment(packed, mask), torch.zeros(2, 3))


def test_a_segment_that_does_not_fit_is_refused_not_cut() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(InputError, match=r"width=2.*\b3\b"):
        pack_segment(torch.ones(1, 3), mask, 2)
    with pytest.raises(InputError, match=r"packed.*\b2\b.*\b3\b"):
        unpack_segment(torch.ones(1, 2), mask)
    with pytest.raises(InputError, match=r"mask.*\[1, 2\].*values.*\[1, 3\]"):
        pack_segment(torch.ones(1, 3), mask[:, :2])


WRONG_MASKS = [torch.ones(2, 1, dtype=torch.bool), torch.ones(3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.long)]


@pytest.mark.parametrize("mask", WRONG_MASKS, ids=["column", "row", "integers"])
@pytest.mark.parametrize("function", [masked_sum, masked_mean, pack_segment, TokenMean(), SequenceSumConstant()])
def test_a_mask_that_would_be_broadcast_is_refused(function, mask) -> None:
    with pytest.raises(InputError, match=r"mask has (shape \[.*values has \[2, 3\]|dtype torch\.int64)"):
        function(torch.ones(2, 3), mask)
