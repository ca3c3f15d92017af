from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning import Policy
from nrt_lightning.advantages import BatchNormalized, ClippedAdvantages, GroupNormalized, LeaveOneOut
from nrt_lightning.errors import InputError
from nrt_lightning.training.method import Method

INF, NAN = float("inf"), float("nan")
ESTIMATORS = [
    GroupNormalized(),
    GroupNormalized(baseline="clip"),
    GroupNormalized(baseline="subtract", scale="none"),
    GroupNormalized(eps=1e-6),
    LeaveOneOut(),
    LeaveOneOut(baseline="clip"),
    GroupNormalized(scale="none"),
    GroupNormalized(baseline="clip", scale="none"),
]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=16
)


def reference(estimator, rewards: torch.Tensor) -> torch.Tensor:
    """The definition for a single group."""
    if len(rewards) == 1:
        return torch.zeros(1, dtype=rewards.dtype)
    if isinstance(estimator, LeaveOneOut):
        others = [torch.cat([rewards[:k], rewards[k + 1 :]]).mean() for k in range(len(rewards))]
        return rewards - torch.stack(others)
    centered = rewards - rewards.mean()
    if estimator.scale == "none":
        return centered
    return centered / (rewards.std() + estimator.eps) if rewards.max() > rewards.min() else torch.zeros_like(rewards)


@each
@given(ROWS, st.randoms())
@settings(deadline=None, max_examples=40)
def test_equals_the_definition_in_any_order_of_rows(estimator, rows, random) -> None:
    random.shuffle(rows)
    group_ids = torch.tensor([g for g, _, _ in rows])
    values = torch.tensor([r for _, r, _ in rows], dtype=torch.float64)
    baseline = torch.tensor([b for _, _, b in rows], dtype=torch.float64)
    rewards = {"none": values, "subtract": values - baseline, "clip": (values - baseline).clamp(min=0)}
    advantages = estimator(values, group_ids, baseline)
    for group in group_ids.unique():
        member = group_ids == group
        expected = reference(estimator, rewards[estimator.baseline][member])
        torch.testing.assert_close(advantages[member], expected, rtol=1e-6, atol=1e-9)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_zero(estimator, dtype) -> None:
    values = torch.full((7,), 0.1, dtype=dtype)
    assert (estimator(values, torch.zeros(7, dtype=torch.long), torch.full_like(values, 0.03)) == 0).all()


@each
def test_a_group_of_one_gives_zero_not_nan(estimator) -> None:
    advantages = estimator(torch.tensor([0.7, 0.2, 0.9]), torch.tensor([0, 1, 1]), torch.full((3,), 0.1))
    assert advantages[0] == 0
    assert advantages[2] > 0 > advantages[1]


@each
@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_reward_that_is_not_finite_gets_zero_and_is_excluded(estimator, broken) -> None:
    group_ids = torch.tensor([0, 1, 0, 0, 1])
    values = torch.tensor([0.9, 0.2, broken, 0.4, 0.6])
    baseline = torch.full((5,), 0.1)
    advantages = estimator(values, group_ids, baseline)
    assert advantages[2] == 0
    kept = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(advantages[kept], estimator(values[kept], group_ids[kept], baseline[kept]))


def test_minus_infinity_is_excluded_with_clipping_too() -> None:
    values, group_ids = torch.tensor([-INF, 0.5, 1.0]), torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(LeaveOneOut()(values, group_ids), torch.tensor([0.0, -0.5, 0.5]))
    for clip in (LeaveOneOut(baseline="clip"), GroupNormalized(baseline="clip"), BatchNormalized(baseline="clip")):
        clipped = clip(values, group_ids, torch.zeros(3))
        assert clipped[0] == 0
        torch.testing.assert_close(clipped[1:], clip(values[1:], group_ids[1:], torch.zeros(2)))


def test_a_group_without_a_finite_reward_is_zero() -> None:
    assert (GroupNormalized()(torch.tensor([NAN, NAN]), torch.tensor([0, 0])) == 0).all()


def test_with_clipping_all_traces_below_the_baseline_have_the_same_advantage() -> None:
    values, group_ids = torch.tensor([0.9, 0.1, 0.3, 0.2]), torch.zeros(4, dtype=torch.long)
    paper = GroupNormalized(baseline="clip")(values, group_ids, torch.full((4,), 0.4))
    assert paper[0] > 0
    assert paper[1] == paper[2] == paper[3] < 0
    authors = GroupNormalized()(values, group_ids)
    assert authors[1] < authors[3] < authors[2] < authors[0]


def test_unscaled_and_uncentered_advantages_are_the_rewards_and_need_no_group() -> None:
    estimator = GroupNormalized(scale="none", center=False)
    values = torch.tensor([0.9, 0.1])
    assert torch.equal(estimator(values, torch.tensor([0, 1])), values)
    assert estimator(torch.tensor([0.9, NAN]), torch.tensor([0, 1]))[1] == 0
    assert not estimator.needs_group


def test_declared_needs() -> None:
    assert [e.needs_baseline for e in ESTIMATORS] == [False, True, True, False, False, True, False, True]
    assert all(e.needs_group for e in ESTIMATORS)


def test_half_precision_is_computed_in_float32() -> None:
    values = torch.tensor([0.0, 1.0, 1.0], dtype=torch.bfloat16)
    advantages = LeaveOneOut()(values, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(advantages, torch.tensor([-1.0, 0.5, 0.5]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "minus"}, "baseline='minus'.*'none', 'subtract', 'clip'"),
        ({"scale": "var"}, "scale='var'.*'std', 'none'"),
        ({"eps": -1.0}, r"eps=-1\.0"),
    ],
)
def test_unknown_settings_are_refused(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        GroupNormalized(**arguments)


@pytest.mark.parametrize("estimator", [GroupNormalized(baseline="clip"), LeaveOneOut(baseline="subtract")], ids=repr)
def test_missing_or_unrepeated_baseline_is_refused(estimator) -> None:
    values, group_ids = torch.zeros(4), torch.zeros(4, dtype=torch.long)
    with pytest.raises(InputError, match=r"baseline=.*baseline_values"):
        estimator(values, group_ids)
    with pytest.raises(InputError, match=r"baseline_values.*\[1\].*values.*\[4\]"):
        estimator(values, group_ids, torch.zeros(1))


BATCH = [
    BatchNormalized(),
    BatchNormalized(center="batch"),
    BatchNormalized(baseline="clip", eps=1e-3),
    BatchNormalized(center="batch", baseline="subtract"),
]
each_batch = pytest.mark.parametrize("estimator", BATCH, ids=repr)


@each_batch
@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_batch_normalized_equals_the_definition(estimator, rows) -> None:
    group_ids = torch.tensor([g for g, _, _ in rows])
    values = torch.tensor([r for _, r, _ in rows], dtype=torch.float64)
    baseline = torch.tensor([b for _, _, b in rows], dtype=torch.float64)
    rewards = {"none": values, "subtract": values - baseline, "clip": (values - baseline).clamp(min=0)}
    difference = rewards[estimator.baseline].clone()
    if estimator.center == "group":
        for group in group_ids.unique():
            difference[group_ids == group] -= difference[group_ids == group].mean()
    if len(rows) == 1 or difference.std() < 1e-6:
        return
    expected = (difference - difference.mean()) / (difference.std() + estimator.eps)
    torch.testing.assert_close(estimator(values, group_ids, baseline), expected, rtol=1e-5, atol=1e-7)


@each_batch
def test_batch_normalized_is_zero_for_equal_rewards_and_excludes_what_is_not_finite(estimator) -> None:
    group_ids, baseline = torch.tensor([0, 0, 1, 1]), torch.full((4,), 0.1)
    assert (estimator(torch.full((4,), 0.3), group_ids, baseline) == 0).all()
    advantages = estimator(torch.tensor([0.9, 0.2, NAN, 0.4]), group_ids, baseline)
    assert advantages[2] == 0
    kept = torch.tensor([0, 1, 3])
    rest = estimator(torch.tensor([0.9, 0.2, 0.4]), group_ids[kept], baseline[kept])
    torch.testing.assert_close(advantages[kept], rest)


def test_one_scale_for_all_groups_does_not_magnify_small_differences() -> None:
    values, group_ids = torch.tensor([1.0, 0.0, 0.5, 0.5001]), torch.tensor([0, 0, 1, 1])
    batch, group = BatchNormalized()(values, group_ids), GroupNormalized()(values, group_ids)
    assert group[3] == pytest.approx(float(group[0]))
    assert 0 < batch[3] < 1e-3 * batch[0]


def test_only_batch_normalization_needs_the_batch() -> None:
    assert not any(estimator.needs_batch for estimator in ESTIMATORS)
    assert all(estimator.needs_batch for estimator in BATCH)
    assert [estimator.needs_group for estimator in BATCH] == [True, False, True, False]


def test_clipped_advantages_of_the_batch_need_the_batch() -> None:
    assert not ClippedAdvantages().needs_batch
    clipped = ClippedAdvantages(of=BatchNormalized(), bound=10.0)
    assert clipped.needs_batch
    values, group_ids = torch.tensor([1.0, 0.0, 0.3, 0.4]), torch.tensor([0, 0, 1, 1])
    whole = clipped(values, group_ids)
    assert whole[0] == pytest.approx(1 / 2**0.5)  # of its group's deviation
    assert Method(Policy("embedded:registers-base"), advantage=clipped).needs_window


def test_a_baseline_that_is_not_finite_does_not_count_in_the_clipped_scale() -> None:
    clipped = ClippedAdvantages(of=GroupNormalized(baseline="subtract", scale="none"), bound=10.0)
    values, group_ids = torch.tensor([0.9, 0.4, 0.7]), torch.zeros(3, dtype=torch.long)
    advantages = clipped(values, group_ids, torch.tensor([0.1, 0.1, -INF]))
    torch.testing.assert_close(advantages[:2], clipped(values[:2], group_ids[:2], torch.full((2,), 0.1)))


def test_the_unscaled_form_is_leave_one_out_up_to_a_factor() -> None:
    values, group_ids = torch.rand(12), torch.arange(12) // 4
    expected = LeaveOneOut()(values, group_ids) * 3 / 4
    torch.testing.assert_close(GroupNormalized(scale="none")(values, group_ids), expected)


@pytest.mark.parametrize("arguments", [{"center": "prompt"}, {"baseline": "minus"}, {"eps": -1.0}])
def test_unknown_settings_of_batch_normalization_are_refused(arguments) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        BatchNormalized(**arguments)
