"""Combinations of signals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nrt_lightning import (
    AnswerConfidence,
    ArithmeticMean,
    Format,
    FunctionSignal,
    GainOverBaseline,
    GeometricMeanOfSignals,
    InputError,
    LengthPenalty,
    LogProb,
    Prob,
    Repetition,
    WeightedSumOfSignals,
)
from nrt_lightning.signals import ScoreEvidence, SignalCombiner

NAMES = ("a", "b", "c")
weights = st.fixed_dictionaries({name: st.floats(0, 10, allow_subnormal=False) for name in NAMES})
values = st.fixed_dictionaries({name: st.lists(st.floats(0, 100), min_size=3, max_size=3) for name in NAMES})


def three(cls: type, weights: dict[str, float]) -> SignalCombiner:
    return cls({name: Format() for name in NAMES}, weights)


def tensors(rows: dict[str, list[float]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(row, dtype=torch.float64) for name, row in rows.items()}


@given(weights, values)
def test_a_weighted_sum(weights: dict[str, float], values: dict[str, list[float]]) -> None:
    combined = three(WeightedSumOfSignals, weights).combine(tensors(values)).tolist()
    assert combined == pytest.approx([sum(weights[s] * values[s][n] for s in NAMES) for n in range(3)])


@given(weights.filter(lambda w: max(w.values()) > 0.1), values)
def test_a_geometric_mean(weights: dict[str, float], values: dict[str, list[float]]) -> None:
    combined = three(GeometricMeanOfSignals, weights).combine(tensors(values)).tolist()
    total = sum(weights.values())
    expected = [math.prod((values[s][n] ** (weights[s] / total)) for s in NAMES) for n in range(3)]
    assert combined == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(values)
def test_the_order_of_signals_does_not_matter(values: dict[str, list[float]]) -> None:
    for cls in (WeightedSumOfSignals, GeometricMeanOfSignals):
        there, back = (
            cls({name: Format() for name in names}).combine({name: tensors(values)[name] for name in names})
            for names in (NAMES, NAMES[::-1])
        )
        torch.testing.assert_close(there, back)


def test_a_weight_of_0_only_logs() -> None:
    values = tensors({"a": [1.0, 2.0, 0.0], "b": [math.inf, 3.0, 0.0], "c": [-math.inf, 1.0, 0.0]})
    assert three(WeightedSumOfSignals, {"b": 0, "c": 0}).combine(values).tolist() == [1.0, 2.0, 0.0]
    assert three(GeometricMeanOfSignals, {"b": 0, "c": 0}).combine(values).tolist() == [1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("signal", "low"),
    [
        (GainOverBaseline(ArithmeticMean()), "-inf"),
        (LengthPenalty(10), "-inf"),
        (Repetition(), "-1.0"),
        (AnswerConfidence(LogProb()), "-inf"),
        (FunctionSignal("math.floor"), "-inf"),
    ],
)
def test_a_geometric_mean_refuses_what_can_be_negative(signal, low: str) -> None:
    with pytest.raises(InputError, match=rf"signals\.wrong.* {low}"):
        GeometricMeanOfSignals({"format": Format(), "wrong": signal})
    assert GeometricMeanOfSignals({"format": Format(), "wrong": signal}, {"wrong": 0})  # logged only


def test_a_geometric_mean_takes_what_cannot() -> None:
    signals = {"gain": GainOverBaseline(ArithmeticMean(), clip=True), "p": AnswerConfidence(Prob()), "f": Format()}
    assert GeometricMeanOfSignals(signals).needs_baseline
    with pytest.raises(InputError, match=r"signals\.f .*-0\.5"):
        GeometricMeanOfSignals(signals).combine({name: torch.tensor([-0.5]) for name in ("f", "gain", "p")} | {
            "gain": torch.tensor([1.0]), "p": torch.tensor([1.0])
        })  # fmt: skip


@pytest.mark.parametrize("cls", [WeightedSumOfSignals, GeometricMeanOfSignals])
def test_what_cannot_be_combined_is_refused(cls: type) -> None:
    with pytest.raises(InputError, match=r"'fromat'.*'format'"):
        cls({"format": Format()}, {"fromat": 1.0})
    with pytest.raises(InputError, match="signals"):
        cls({})
    with pytest.raises(InputError, match="'My signal'"):
        cls({"My signal": Format()})
    with pytest.raises(InputError, match="on_error='stop'"):
        cls({"format": Format()}, on_error="stop")


def test_negative_weights_are_for_sums() -> None:
    assert WeightedSumOfSignals({"f": Format()}, {"f": -1.0}).combine({"f": torch.ones(1)}).item() == -1
    with pytest.raises(InputError, match=r"weights\.f"):
        GeometricMeanOfSignals({"f": Format()}, {"f": -1.0})
    with pytest.raises(InputError, match=r"weights.*0"):
        GeometricMeanOfSignals({"f": Format()}, {"f": 0})


def test_a_clipped_gain_of_minus_infinity_leaves_its_rollout_out() -> None:
    logprobs = torch.tensor([[-torch.inf, -0.5], [-0.2, -0.3]])
    mask, baseline = torch.ones(2, 2, dtype=torch.bool), torch.full((2, 2), -1.0)
    gain = GainOverBaseline(LogProb(), clip=True)
    found = gain(ScoreEvidence(None, logprobs, mask, baseline))
    assert found.isfinite().tolist() == [False, True]
    for cls in (WeightedSumOfSignals, GeometricMeanOfSignals):
        combined = cls({"gain": gain, "format": Format()}).combine({"gain": found, "format": torch.ones(2)})
        assert combined.isfinite().tolist() == [False, True]
