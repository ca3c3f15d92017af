from __future__ import annotations

import pytest
import torch

from nrt_lightning.errors import InputError
from nrt_lightning.functional import SequenceMean, SequenceSum, SequenceSumConstant, TokenMean

REDUCTIONS = [SequenceSumConstant(), SequenceSumConstant(7, average=False), SequenceMean(), SequenceSum(), TokenMean()]
VALUES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
MASK = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (SequenceSumConstant(10), (6 + 5) / 10 / 3),  # all three sequences count
        (SequenceSumConstant(10, average=False), (6 + 5) / 10),
        (SequenceSum(), (6 + 5) / 2),  # the two with tokens count
        (SequenceMean(), (6 / 3 + 5 / 1) / 2),
        (TokenMean(), (6 + 5) / 4),
    ],
    ids=repr,
)
def test_value(reduction, expected) -> None:
    assert reduction(VALUES, MASK).item() == pytest.approx(expected)


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=repr)
def test_an_empty_mask_gives_zero_with_zero_gradient(reduction) -> None:
    values = torch.full((2, 3), float("nan"), requires_grad=True)
    result = reduction(values, torch.zeros(2, 3, dtype=torch.bool))
    result.backward()
    assert result == 0
    assert values.grad is not None
    assert (values.grad == 0).all()


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("reduction", REDUCTIONS, ids=repr)
def test_garbage_outside_the_mask_has_no_effect(reduction, garbage) -> None:
    dirty = VALUES.masked_fill(~MASK, garbage).requires_grad_()
    result = reduction(dirty, MASK)
    result.backward()
    assert torch.equal(result, reduction(VALUES, MASK))
    assert dirty.grad is not None
    assert (dirty.grad[~MASK] == 0).all()
    assert (dirty.grad[MASK] > 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=repr)
def test_padding_and_order_of_rows_have_no_effect(reduction) -> None:
    expected = reduction(VALUES, MASK)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(reduction(VALUES[order], MASK[order]), expected)
    wide = torch.cat([VALUES, torch.ones(3, 4)], dim=1), torch.cat([MASK, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(reduction(*wide), expected)


def test_averaging_makes_micro_batches_agree_with_one_batch() -> None:
    values, mask = VALUES[:2], MASK[:2]
    reduction = SequenceSumConstant(10)
    accumulated = (reduction(values[:1], mask[:1]) + reduction(values[1:], mask[1:])) / 2  # gradient accumulation
    torch.testing.assert_close(accumulated, reduction(values, mask))


@pytest.mark.parametrize("divisor", [0, -1.0, float("nan")])
def test_divisor_must_be_positive(divisor) -> None:
    with pytest.raises(InputError, match=f"divisor={divisor}"):
        SequenceSumConstant(divisor)


def test_equality_and_repr() -> None:
    assert SequenceSumConstant(512) == SequenceSumConstant()
    assert repr(SequenceSumConstant()) == "SequenceSumConstant(divisor=512.0, average=True)"
