from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning.errors import InputError
from nrt_lightning.functional import group_normalize, group_statistics

FINITE = st.floats(-1e3, 1e3, width=32)
ROWS = st.lists(st.tuples(st.integers(-2, 3), FINITE, st.booleans()), min_size=1, max_size=14)


@given(ROWS, st.sampled_from([torch.float32, torch.float64]), st.sampled_from([float("nan"), float("inf"), 1e38]))
@settings(deadline=None, max_examples=80)
def test_equals_a_loop_over_groups(rows, dtype, garbage) -> None:
    """With any ids and order of rows, and any value in excluded rows."""
    group_ids = torch.tensor([g for g, _, _ in rows])
    valid = torch.tensor([v for _, _, v in rows])
    values = torch.tensor([x for _, x, _ in rows], dtype=dtype)
    stats = group_statistics(values.masked_fill(~valid, garbage), group_ids, valid)
    for i, group in enumerate(group_ids.tolist()):
        members = values[(group_ids == group) & valid].double()
        mean = members.mean().item() if len(members) else 0.0
        std = members.std().item() if len(members) > 1 else 0.0
        assert stats.count[i] == len(members)
        assert stats.mean[i].item() == pytest.approx(mean, rel=1e-4, abs=1e-2 if dtype == torch.float32 else 1e-9)
        assert stats.std[i].item() == pytest.approx(std, rel=1e-4, abs=1e-2 if dtype == torch.float32 else 1e-9)
        centered = values[i].item() - mean if valid[i] else 0.0
        assert stats.centered[i].item() == pytest.approx(centered, rel=1e-4, abs=1e-2)


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 13), st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None, max_examples=60)
def test_std_of_equal_values_is_exactly_zero(value, count, dtype) -> None:
    values = torch.full((count,), value / 3, dtype=dtype)
    stats = group_statistics(values, torch.zeros(count, dtype=torch.long))
    assert (stats.std == 0).all()
    assert (stats.centered == 0).all()
    assert torch.equal(stats.mean, values)


def test_differences_in_the_last_digits_are_kept() -> None:
    values = torch.tensor([1e6, 1e6 + 0.0625, 1e6 + 0.125])  # neighbors in float32
    stats = group_statistics(values, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(stats.std, torch.full((3,), 0.0625))
    torch.testing.assert_close(stats.centered, torch.tensor([-0.0625, 0.0, 0.0625]))


def test_values_near_the_largest_float_do_not_overflow() -> None:
    normalized = group_normalize(torch.tensor([0.0, 3e38, 1.5e38]), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(normalized, torch.tensor([-1.0, 1.0, 0.0]))


@given(ROWS, st.randoms())
@settings(deadline=None, max_examples=40)
def test_permuting_rows_permutes_results(rows, random) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    group_ids = torch.tensor([g for g, _, _ in rows])
    values = torch.tensor([x for _, x, _ in rows], dtype=torch.float64)
    expected = group_normalize(values, group_ids)[order]
    torch.testing.assert_close(group_normalize(values[order], group_ids[order]), expected, rtol=1e-6, atol=1e-9)


def test_center_scale_and_eps() -> None:
    values, ids = torch.tensor([1.0, 3.0]), torch.tensor([4, 4])
    std = 2**0.5
    torch.testing.assert_close(group_normalize(values, ids, scale=False), torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(group_normalize(values, ids, center=False), torch.tensor([1 / std, 3 / std]))
    torch.testing.assert_close(group_normalize(values, ids, eps=0.5), torch.tensor([-1.0, 1.0]) / (std + 0.5))
    assert torch.equal(group_normalize(values, ids, center=False, scale=False), values)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_excluded_rows_get_zero(center, scale) -> None:
    values, valid = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True])
    normalized = group_normalize(values, torch.zeros(3, dtype=torch.long), valid, center=center, scale=scale)
    assert normalized[1] == 0
    assert normalized.isfinite().all()


@given(ROWS, st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_columns_are_treated_separately(rows, width) -> None:
    group_ids = torch.tensor([g for g, _, _ in rows])
    columns = [torch.tensor([x for _, x, _ in rows]) * (i + 1) for i in range(width)]
    masks = [torch.tensor([v for _, _, v in rows]).roll(i) for i in range(width)]
    values = torch.stack(columns, 1) if width else torch.zeros(len(rows), 0)
    valid = torch.stack(masks, 1) if width else torch.zeros(len(rows), 0, dtype=torch.bool)
    stats = group_statistics(values, group_ids, valid)
    assert stats.std.shape == values.shape
    for i in range(width):
        alone = group_statistics(columns[i], group_ids, masks[i])
        for name in ("mean", "std", "count", "centered"):
            assert torch.equal(getattr(stats, name)[:, i], getattr(alone, name))


def test_no_rows_and_wrong_shapes() -> None:
    empty = group_statistics(torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert empty.mean.shape == empty.count.shape == (0,)
    with pytest.raises(InputError, match=r"group_ids.*\[2\].*values.*3"):
        group_statistics(torch.zeros(3), torch.zeros(2, dtype=torch.long))


def test_half_precision_is_computed_in_float32() -> None:
    stats = group_statistics(torch.tensor([0.0, 1.0, 1.0], dtype=torch.bfloat16), torch.zeros(3, dtype=torch.long))
    assert stats.mean.dtype == torch.float32
    torch.testing.assert_close(stats.mean[0], torch.tensor(2 / 3))
