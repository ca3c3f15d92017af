from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning.errors import InputError
from nrt_lightning.filters import (
    DifficultyBandFilter,
    EMADeviationFilter,
    GroupFilter,
    Groups,
    MinimumSpreadFilter,
    ZeroVarianceFilter,
    apply_filters,
)
from nrt_lightning.filters.base import measure_groups, names_of


def groups(rewards, ids, confidence=None, baseline=None, mask=None) -> Groups:
    count = len(rewards)
    confidence = torch.full((count, 2), 0.5) if confidence is None else torch.tensor(confidence)
    return Groups(
        torch.tensor(rewards),
        torch.tensor(ids),
        confidence.log(),
        torch.ones_like(confidence, dtype=torch.bool) if mask is None else torch.tensor(mask),
        None if baseline is None else torch.tensor(baseline).log(),
    )


def kept(filter_, batch) -> list[bool]:
    return filter_.keep(filter_.measure(batch)).tolist()


def test_zero_variance_keeps_groups_whose_rewards_differ() -> None:
    batch = groups([0.1, 0.1, 0.1, 0.4, 0.7, 0.7], [0, 0, 1, 1, 2, 2])
    assert kept(ZeroVarianceFilter(), batch) == [False, True, False]


def test_rounding_errors_do_not_count_as_variance() -> None:
    batch = groups([0.5, 0.5 + 1e-7, 0.5, 0.5001], [0, 0, 1, 1])
    assert kept(ZeroVarianceFilter(), batch) == [False, True]
    assert kept(ZeroVarianceFilter(tolerance=0), batch) == [True, True]


def test_a_reward_that_is_not_finite_does_not_count_as_variance() -> None:
    batch = groups([0.5, -math.inf, 0.5, 0.1, math.nan, 0.3], [0, 0, 0, 1, 1, 1])
    assert kept(ZeroVarianceFilter(), batch) == [False, True]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=14, max_size=20))
@settings(deadline=None, max_examples=40)
def test_the_moving_average_equals_the_authors(steps) -> None:
    """As in RLPR's trainer: the plain mean of steps 6 to 10, then a moving average with momentum 0.99."""
    filter_, means, average = EMADeviationFilter(beta=0.9), [], None
    for step, measured in enumerate(steps, start=1):
        if step >= 11:
            average = sum(means) / len(means) if average is None else 0.99 * average + 0.01 * means[-1]
        bound = 0 if average is None else 0.9 * average
        values = torch.tensor(measured, dtype=torch.float64)
        away = (values - bound).abs() > 1e-9  # closer to the bound the result depends on rounding
        assert torch.equal(filter_.keep(values)[away], (values >= bound)[away])
        filter_.observe(values)
        if step >= 6:
            means.append(sum(measured) / 3)


def test_nothing_is_filtered_before_filter_from() -> None:
    filter_ = EMADeviationFilter(average_from=2, filter_from=4)
    decisions = []
    for _ in range(5):
        decisions.append(filter_.keep(torch.tensor([0.0, 1.0])).tolist())
        filter_.observe(torch.tensor([0.0, 1.0]))
    assert decisions == [[True, True]] * 3 + [[False, True]] * 2


@pytest.mark.parametrize("stop", range(14))
def test_a_filter_restored_from_its_state_continues_exactly(stop) -> None:
    torch.manual_seed(0)
    batches = list(torch.rand(20, 8))
    whole, half, rest = (EMADeviationFilter(momentum=0.7) for _ in range(3))
    expected = []
    for batch in batches:
        expected.append(whole.keep(batch))
        whole.observe(batch)
    for batch in batches[:stop]:
        half.observe(batch)
    rest.load_state_dict(half.state_dict())
    for batch, decision in zip(batches[stop:], expected[stop:]):
        assert torch.equal(rest.keep(batch), decision)
        rest.observe(batch)


def test_repr_does_not_contain_the_state() -> None:
    filter_ = EMADeviationFilter()
    before = repr(filter_)
    filter_.observe(torch.tensor([1.0]))
    assert repr(filter_) == before


def test_difficulty_is_the_mean_confidence_without_a_trace() -> None:
    batch = groups(
        [0.0] * 3,
        [0, 1, 2],
        baseline=[[0.9, 0.9], [0.1, 0.9], [0.3, 1e-30]],
        mask=[[True, True], [True, True], [True, False]],
    )
    band = DifficultyBandFilter(low=0.25, high=0.5)
    torch.testing.assert_close(band.measure(batch), torch.tensor([0.9, 0.3, 0.3]))
    assert kept(band, batch) == [False, True, True]
    with pytest.raises(InputError, match=r"DifficultyBandFilter.*baseline_logprobs"):
        band.measure(groups([0.0], [0]))


def test_an_answer_without_tokens_has_no_spread() -> None:
    none = torch.zeros(4, 0)
    batch = Groups(torch.zeros(4), torch.tensor([0, 0, 1, 1]), none, none.bool())
    assert MinimumSpreadFilter().measure(batch).tolist() == [0, 0]


def test_spread_is_the_largest_deviation_of_an_answer_token() -> None:
    confidence = [[0.9, 0.1], [0.9, 0.5], [0.5, 0.1], [0.5, 0.9]]
    batch = groups([0.0] * 4, [0, 0, 1, 1], confidence, mask=[[True, True]] * 2 + [[True, False]] * 2)
    spread = MinimumSpreadFilter(0.2)
    expected = torch.tensor([0.1, 0.5]).log().std()
    torch.testing.assert_close(spread.measure(batch), torch.stack([expected, torch.tensor(0.0)]))
    assert kept(spread, batch) == [True, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.floats(0, 1), st.floats(0, 1))
def test_every_dropped_group_is_counted_for_one_filter(values, low, tolerance) -> None:
    measured = torch.tensor(values, dtype=torch.float64)
    filters = [DifficultyBandFilter(low=low), ZeroVarianceFilter(tolerance=tolerance)]
    dropped = torch.stack(apply_filters(filters, [measured, measured]))
    assert int(dropped.sum(0).max()) <= 1
    assert torch.equal(~dropped.any(0), (measured >= low) & (measured > tolerance))


def test_names_in_logs() -> None:
    filters = [ZeroVarianceFilter(), EMADeviationFilter(), DifficultyBandFilter(), MinimumSpreadFilter()]
    assert [f.name for f in filters] == ["zero_variance", "ema_deviation", "difficulty_band", "minimum_spread"]


class Easy(GroupFilter):
    """Of a user, with a name and results that a test chooses."""

    def __init__(self, keeps=None, measures=None):
        self.keeps, self.measures = keeps, measures

    def measure(self, groups):
        return self.measures(groups)

    def keep(self, values):
        return self.keeps(values)


class FilterOfMine(Easy):
    pass


def test_names_of_other_classes_are_whole_and_differ() -> None:
    assert names_of([Easy(), FilterOfMine(), Easy()]) == ["easy", "filter_of_mine", "easy_2"]


@pytest.mark.parametrize(
    ("keeps", "got"),
    [
        (lambda values: (values > 0).long(), r"int64 tensor of shape \[2\]"),
        (lambda values: values > values.new_zeros(2, 1), r"bool tensor of shape \[2, 2\]"),
        (lambda values: (values > 0).tolist(), "list"),
        (lambda values: (values > 0).all(), r"bool tensor of shape \[\]"),
    ],
)
def test_a_filter_decides_on_each_group(keeps, got) -> None:
    with pytest.raises(InputError, match=rf"Easy\.keep returned a {got}\. Return a bool tensor of shape \[2\]"):
        apply_filters([Easy(keeps)], [torch.tensor([0.0, 0.1])])


@pytest.mark.parametrize(
    ("measures", "got"),
    [
        (lambda batch: batch.rewards, r"float32 tensor of shape \[4\]"),
        (lambda batch: batch.deviation().unsqueeze(1), r"float32 tensor of shape \[2, 1\]"),
        (lambda batch: batch.deviation().tolist(), "list"),
    ],
)
def test_a_filter_measures_each_group(measures, got) -> None:
    batch = groups([0.0, 0.1, 0.2, 0.3], [0, 0, 1, 1], [[0.5]] * 4)
    with pytest.raises(InputError, match=rf"Easy\.measure returned a {got}\. Return a tensor of shape \[2\]"):
        measure_groups(Easy(measures=measures), batch)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (EMADeviationFilter, {"beta": -1.0}, "beta=-1.0"),
        (EMADeviationFilter, {"momentum": 1.5}, "momentum=1.5"),
        (EMADeviationFilter, {"average_from": 0}, "average_from=0"),
        (EMADeviationFilter, {"filter_from": 6}, "filter_from=6.*6"),
        (DifficultyBandFilter, {"low": 0.6, "high": 0.5}, "high=0.5.*low=0.6"),
        (DifficultyBandFilter, {"high": 50.0}, "high=50.0"),
        (MinimumSpreadFilter, {"minimum": math.nan}, "minimum=nan"),
        (ZeroVarianceFilter, {"tolerance": -1.0}, "tolerance=-1.0"),
    ],
)
def test_unknown_settings_are_refused(cls, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        cls(**arguments)
