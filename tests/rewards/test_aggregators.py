from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrt_lightning.advantages import GroupNormalized, LeaveOneOut
from nrt_lightning.errors import InputError
from nrt_lightning.rewards import ArithmeticMean, GeometricMean, LogProb, MeanLogProb, Prob, WeightedSum

AGGREGATORS = [
    LogProb(),
    Prob(),
    GeometricMean(),
    ArithmeticMean(),
    WeightedSum(),
    WeightedSum("inverse_prob"),
]
FORMULAS = {
    "log_prob": lambda c, b: sum(map(math.log, c)),
    "prob": lambda c, b: math.prod(c),
    "geometric_mean": lambda c, b: math.prod(c) ** (1 / len(c)),
    "arithmetic_mean": lambda c, b: sum(c) / len(c),
    "weighted_sum_neg_log_prob": lambda c, b: sum(-math.log(y) * x for x, y in zip(c, b, strict=True)) / len(c),
    "weighted_sum_inverse_prob": lambda c, b: sum(x / y for x, y in zip(c, b, strict=True)) / len(c),
}
INF, NAN = float("inf"), float("nan")
PROBABILITY = st.floats(0.01, 1.0)
ANSWERS = st.lists(st.lists(st.tuples(PROBABILITY, PROBABILITY), min_size=1, max_size=6), min_size=1, max_size=5)
each = pytest.mark.parametrize("aggregator", AGGREGATORS, ids=lambda a: a.name)


def tensors(answers, garbage=NAN, dtype=torch.float64):
    """Log-probs `[N, T]`, baseline `[N, T]` and mask of ragged answers, with garbage in the padding."""
    width = max(map(len, answers))
    mask = torch.tensor([[i < len(answer) for i in range(width)] for answer in answers])
    columns = [torch.full(mask.shape, garbage, dtype=dtype) for _ in range(2)]
    for row, answer in enumerate(answers):
        for i, pair in enumerate(answer):
            for column, p in zip(columns, pair, strict=True):
                column[row, i] = math.log(p)
    return columns[0], columns[1], mask


def test_names_and_class_attributes() -> None:
    assert [a.name for a in AGGREGATORS] == list(FORMULAS)
    assert [a.needs_baseline for a in AGGREGATORS] == [False] * 4 + [True] * 2
    assert [a for a in [*AGGREGATORS, MeanLogProb()] if a.gives_logprobs] == [LogProb()]


@each
@given(ANSWERS, st.sampled_from([NAN, INF, -INF, 50.0]))
@settings(deadline=None, max_examples=40)
def test_value_equals_the_formula_for_any_padding(aggregator, answers, garbage) -> None:
    logprobs, baseline, mask = tensors(answers, garbage)
    reward = aggregator(logprobs, mask, baseline)
    for value, answer in zip(reward.value.tolist(), answers, strict=True):
        assert value == pytest.approx(FORMULAS[aggregator.name](*zip(*answer, strict=True)), rel=1e-9, abs=1e-12)
    assert (reward.token_weights[~mask] == 0).all()


@each
@given(ANSWERS)
@settings(deadline=None, max_examples=40)
def test_token_weights_are_confidence_times_derivative(aggregator, answers) -> None:
    logprobs, baseline, mask = tensors(answers)
    confidences = logprobs.exp().masked_fill(~mask, 0.5).requires_grad_()  # f as a function of c
    reward = aggregator(confidences.log(), mask, baseline)
    (derivative,) = torch.autograd.grad(reward.value.sum(), confidences)
    torch.testing.assert_close(reward.token_weights, confidences.detach() * derivative, rtol=1e-9, atol=1e-12)


@each
def test_gradient_outside_the_answer_is_exactly_zero(aggregator) -> None:
    logprobs, baseline, mask = tensors([[(0.5, 0.2)], [(0.5, 0.4), (0.1, 0.9)]])
    logprobs.requires_grad_()
    (grad,) = torch.autograd.grad(aggregator(logprobs, mask, baseline).value.sum(), logprobs)
    assert (grad[~mask] == 0).all()
    assert (grad[mask] > 0).all()


@each
def test_rows_are_independent(aggregator) -> None:
    answers = [[(0.5, 0.2), (0.3, 0.3)], [(0.9, 0.4)], [(0.2, 0.1), (1.0, 0.5), (0.7, 0.7)]]
    logprobs, baseline, mask = tensors(answers)
    whole = aggregator(logprobs, mask, baseline)
    order = torch.tensor([2, 0, 1])
    permuted = aggregator(logprobs[order], mask[order], baseline[order])
    torch.testing.assert_close(permuted.value, whole.value[order])
    alone = aggregator(logprobs[1:2], mask[1:2], baseline[1:2])
    torch.testing.assert_close(alone.value, whole.value[1:2])
    logprobs[0, 0] = NAN
    torch.testing.assert_close(aggregator(logprobs, mask, baseline).value[1:], whole.value[1:])


@each
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(aggregator, half) -> None:
    logprobs, baseline, mask = (x.to(half) if x.is_floating_point() else x for x in tensors([[(0.7, 0.2)] * 5]))
    reward = aggregator(logprobs, mask, baseline)
    assert reward.value.dtype == reward.token_weights.dtype == torch.float32
    torch.testing.assert_close(reward.value, aggregator(logprobs.float(), mask, baseline.float()).value)


@each
def test_detached_inputs_give_detached_results(aggregator) -> None:
    logprobs, baseline, mask = tensors([[(0.7, 0.2)]])
    reward = aggregator(logprobs, mask, baseline)
    assert not reward.value.requires_grad
    assert not reward.token_weights.requires_grad


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_zero_and_one(aggregator, dtype) -> None:
    """Token weights are finite, and so are rewards except log 0."""
    certain, impossible = 0.0, -INF
    logprobs = torch.tensor([[certain, certain], [certain, impossible], [certain, certain]], dtype=dtype)
    baseline = torch.tensor([[certain, certain], [certain, certain], [certain, impossible]], dtype=dtype)
    reward = aggregator(logprobs, torch.ones(3, 2, dtype=torch.bool), baseline)
    assert reward.token_weights.isfinite().all()
    expected = {
        "log_prob": [0.0, -INF, 0.0],
        "prob": [1.0, 0.0, 1.0],
        "geometric_mean": [1.0, 0.0, 1.0],
        "arithmetic_mean": [1.0, 0.5, 1.0],
        "weighted_sum_neg_log_prob": [0.0, 0.0, 5000.0],
        "weighted_sum_inverse_prob": [1.0, 0.5, None],  # large but finite
    }[aggregator.name]
    for value, target in zip(reward.value.tolist(), expected, strict=True):
        assert 1e30 < value < INF if target is None else value == pytest.approx(target)


def test_a_certain_answer_has_the_highest_reward() -> None:
    for aggregator in AGGREGATORS[:4]:
        logprobs, baseline, mask = tensors([[(1.0, 0.5), (1.0, 0.5)], [(0.99, 0.5), (1.0, 0.5)]])
        value = aggregator(logprobs, mask, baseline).value
        assert value[0] == (0 if aggregator == LogProb() else 1)
        assert value[0] > value[1]


@each
@pytest.mark.parametrize("estimator", [GroupNormalized(), LeaveOneOut()], ids=repr)
def test_empty_answer_never_wins_its_group(aggregator, estimator) -> None:
    """In the official code the product over no tokens is 1, the highest reward."""
    logprobs, baseline, mask = tensors([[(0.9, 0.5), (0.9, 0.4)], [(0.9, 0.5)], [(0.1, 0.2), (0.3, 0.6)]])
    mask[1] = False
    reward = aggregator(logprobs, mask, baseline)
    assert reward.value[1] == (-INF if aggregator == LogProb() else 0)
    assert (reward.token_weights[1] == 0).all()
    advantages = estimator(reward.value, torch.zeros(3, dtype=torch.long))
    assert advantages.isfinite().all()
    assert advantages[1] <= 0 < advantages[0]


@each
def test_batch_of_empty_answers(aggregator) -> None:
    empty = torch.zeros(2, 0)
    reward = aggregator(empty, empty.bool(), empty)
    assert reward.value.tolist() == [-INF if aggregator == LogProb() else 0.0] * 2
    assert (GroupNormalized()(reward.value, torch.tensor([0, 0])) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighting", ["neg_log_prob", "inverse_prob"])
@pytest.mark.parametrize("extreme", [1e-7, -120.0, -760.0])
def test_extreme_baseline_does_not_raise(weighting, extreme, dtype) -> None:
    """The official code raises on a log-prob of +1e-7 (rounding) or one that underflows."""
    logprobs = torch.tensor([[-0.5, -0.25], [-0.5, -0.25]], dtype=dtype)
    baseline = torch.tensor([[extreme, -1.0], [-1.0, -1.0]], dtype=dtype)
    reward = WeightedSum(weighting)(logprobs, torch.ones(2, 2, dtype=torch.bool), baseline)
    assert reward.value.isfinite().all()
    assert reward.token_weights.isfinite().all()
    assert (reward.token_weights >= 0).all()
    if weighting == "neg_log_prob":
        torch.testing.assert_close(
            reward.token_weights[0, 0], torch.tensor(max(-extreme, 0) * math.exp(-0.5) / 2, dtype=dtype)
        )
    advantages = GroupNormalized()(reward.value, torch.tensor([0, 0]))
    torch.testing.assert_close(advantages.abs(), torch.full((2,), 0.5**0.5, dtype=dtype))


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(InputError, match=r"weighting='log'.*'neg_log_prob', 'inverse_prob'"):
        WeightedSum("log")  # type: ignore[arg-type]


def test_a_missing_baseline_is_refused() -> None:
    with pytest.raises(InputError, match=r"WeightedSum.*baseline_logprobs"):
        WeightedSum()(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))


def test_one_baseline_row_for_a_group_is_refused_not_broadcast() -> None:
    mask = torch.ones(4, 2, dtype=torch.bool)
    with pytest.raises(InputError, match=r"baseline_logprobs.*\[1, 2\].*\[4, 2\]"):
        WeightedSum()(torch.zeros(4, 2), mask, torch.zeros(1, 2))
    with pytest.raises(InputError, match=r"answer_logprobs.*\[4, 3\].*\[4, 2\]"):
        GeometricMean()(torch.zeros(4, 3), mask)


def test_equality_and_repr() -> None:
    assert WeightedSum() == WeightedSum("neg_log_prob") != WeightedSum("inverse_prob")
    assert repr(WeightedSum()) == "WeightedSum(weighting='neg_log_prob')"
