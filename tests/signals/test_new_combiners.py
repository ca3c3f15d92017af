"""Combinations and advantages that compare signals within groups."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from short_runs import nrt_module

from nrt_lightning import (
    AnswerConfidence,
    ClippedAdvantages,
    ExactMatch,
    Format,
    GeometricMeanOfSignals,
    GroupNormalizedSum,
    InputError,
    KLPenalty,
    LogProb,
    MatchFirst,
    MaxRL,
    NegativeEntropy,
    PenalizeOverlong,
    Prob,
    Repetition,
    TwiceTheMean,
    WeightedSumOfSignals,
)

GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])


def test_signals_are_normalized_one_by_one_before_they_are_summed():
    a, b = [0.0, 10.0, 20.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    combined = GroupNormalizedSum({"a": Format(), "b": Format(), "c": Format()}, weights={"b": 0.5, "c": 0})
    values = {"a": torch.tensor(a), "b": torch.tensor(b), "c": torch.full((6,), math.nan)}
    expected = []
    for start in (0, 3):
        for n in range(start, start + 3):
            total = 0.0
            for weight, signal in ((1.0, a), (0.5, b)):
                group = signal[start : start + 3]
                spread = statistics.stdev(group)
                total += weight * (signal[n] - statistics.mean(group)) / spread if spread else 0.0
            expected.append(total)
    assert combined.combine(values, GROUPS).tolist() == pytest.approx(expected)


def test_a_rollout_without_a_value_is_left_out():
    combined = GroupNormalizedSum({"a": Format(), "b": Format()})
    values = {"a": torch.tensor([1.0, math.nan, 3.0]), "b": torch.tensor([0.0, 5.0, 1.0])}
    found = combined.combine(values, torch.tensor([0, 0, 0]))
    assert found.isnan().tolist() == [False, True, False]
    assert found[[0, 2]].tolist() == pytest.approx([-math.sqrt(2), math.sqrt(2)])


def test_matches_come_first_where_there_are_any():
    signals = MatchFirst({"match": ExactMatch(), "bound": AnswerConfidence(LogProb())})
    values = {"match": torch.tensor([1.0, 0, 0, 0, 0, 0]), "bound": torch.tensor([-1.0, -2, -3, -4, -math.inf, -6])}
    assert signals.combine(values, GROUPS).tolist() == [1.0, 0.0, 0.0, -4.0, -math.inf, -6.0]
    with pytest.raises(InputError, match=r"no signal 'mach'"):
        MatchFirst({"match": ExactMatch(), "bound": Format()}, match="mach")
    with pytest.raises(InputError, match=r"only 'match'"):
        MatchFirst({"match": ExactMatch()})


def test_minima_follow_from_those_of_the_signals():
    two = {"a": Format(), "b": Repetition()}
    assert WeightedSumOfSignals(two, weights={"b": 0.5}).minimum == -0.5
    assert WeightedSumOfSignals(two, weights={"b": 0}).minimum == 0
    assert WeightedSumOfSignals({"a": Format()}, weights={"a": -1}).minimum == -math.inf
    assert GeometricMeanOfSignals({"a": Format()}).minimum == 0
    assert MatchFirst({"match": ExactMatch(), "b": Repetition()}).minimum == -1


def test_max_rl_divides_by_the_mean():
    rewards = [1.0, 0.0, 0.5, 0.0, 0.0, 0.0]
    found = MaxRL()(torch.tensor(rewards), GROUPS).tolist()
    assert found == pytest.approx([(r - 0.5) / (0.5 + 1e-6) for r in rewards[:3]] + [0.0] * 3)
    assert MaxRL()(torch.tensor([1.0, math.nan, 0.0]), torch.tensor([0, 0, 0])).tolist() == pytest.approx(
        [1.0, 0.0, -1.0], abs=1e-5
    )
    with pytest.raises(InputError, match=r"-1"):
        MaxRL()(torch.tensor([1.0, -1.0]), torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregator": LogProb()}, r"MaxRL.*aggregator LogProb"),
        ({"signals": WeightedSumOfSignals({"r": Repetition()})}, r"MaxRL.*signals.r"),
        ({"aggregator": Prob(), "overlong": PenalizeOverlong()}, r"MaxRL.*overlong"),
        ({"aggregator": Prob(), "kl_penalty": KLPenalty()}, r"MaxRL"),
    ],
)
def test_rewards_that_can_be_negative_are_refused_before_training(settings, message):
    for advantage in (MaxRL(), ClippedAdvantages(MaxRL())):
        with pytest.raises(InputError, match=message):
            nrt_module(advantage=advantage, **settings)
    nrt_module(advantage=MaxRL(), aggregator=Prob())


def test_twice_the_mean_needs_log_probs():
    with pytest.raises(InputError, match=r"TwiceTheMean"):
        nrt_module(aggregator=Prob(), overlong=TwiceTheMean())
    nrt_module(aggregator=LogProb(), overlong=TwiceTheMean())


def test_label_free_rewards_have_no_baseline():
    from nrt_lightning import GroupNormalized

    with pytest.raises(InputError, match=r"baseline"):
        nrt_module(signals=WeightedSumOfSignals({"e": NegativeEntropy()}), advantage=GroupNormalized(baseline="clip"))
