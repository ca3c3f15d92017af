from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning.errors import InputError
from nrt_lightning.rewards import DerivedTokenWeights, FixedTokenWeights

NAN = float("nan")


@st.composite
def batches(draw: st.DrawFn):
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=8))
    width = max(max(lengths), 1)
    mask = torch.tensor([[i < n for i in range(width)] for n in lengths])
    group_ids = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths))))
    seed = draw(st.integers(0, 2**31))
    weights = torch.rand(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    garbage = draw(st.sampled_from([NAN, float("inf"), 1e300]))
    return weights.masked_fill(~mask, garbage), mask, group_ids


@given(batches(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_derived_weights_pool_the_tokens_of_a_group(batch, center, scale) -> None:
    weights, mask, group_ids = batch
    result = DerivedTokenWeights(center=center, scale=scale)(weights, mask, group_ids)
    assert (result[~mask] == 0).all()
    for group in group_ids.unique():
        rows = group_ids == group
        tokens = weights[rows][mask[rows]]
        expected = tokens - tokens.mean() if center else tokens
        if scale:
            expected = expected / tokens.std() if len(tokens) > 1 else torch.zeros_like(tokens)
        torch.testing.assert_close(result[rows][mask[rows]], expected)


def test_equal_weights_become_zero_exactly() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert (DerivedTokenWeights()(torch.full((2, 2), 0.1), mask, torch.tensor([5, 5])) == 0).all()


def test_a_group_of_one_token_is_zero_not_nan() -> None:
    result = DerivedTokenWeights()(torch.tensor([[0.3]]), torch.tensor([[True]]), torch.tensor([0]))
    assert result.tolist() == [[0.0]]


def test_a_weight_that_is_not_finite_is_excluded() -> None:
    weights = torch.tensor([[1.0, 2.0, NAN], [3.0, float("inf"), 4.0]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    result = DerivedTokenWeights(scale=False)(weights, mask, torch.tensor([0, 0]))
    torch.testing.assert_close(result, torch.tensor([[-1.5, -0.5, 0.0], [0.5, 0.0, 1.5]]))


def test_fixed_weights_are_one_on_the_answer() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    result = FixedTokenWeights()(torch.full((2, 2), NAN, dtype=torch.bfloat16), mask, torch.tensor([0, 0]))
    assert result.dtype == torch.float32
    assert torch.equal(result, mask.float())


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"token_weights.*\[2, 3\].*answer_mask.*\[2, 2\]"):
        DerivedTokenWeights()(torch.ones(2, 3), torch.ones(2, 2, dtype=torch.bool), torch.tensor([0, 0]))
