"""The multi-sample bound: advantages, and weights of the answer term."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nrt_lightning.advantages import ClippedAdvantages, GroupNormalized, LeaveOneOut, MultiSampleBound
from nrt_lightning.errors import InputError
from nrt_lightning.rewards import PosteriorTokenWeights

GROUPS = st.lists(st.lists(st.floats(-30, -0.01), min_size=2, max_size=6), min_size=1, max_size=3)
INF = math.inf


def flat(groups: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = [g for g, group in enumerate(groups) for _ in group]
    return torch.tensor([v for group in groups for v in group], dtype=torch.float64), torch.tensor(ids)


@given(GROUPS)
def test_is_the_bound_minus_the_bound_without_the_trace(groups: list[list[float]]) -> None:
    values, ids = flat(groups)
    expected = []
    for group in groups:
        p = [math.exp(v) for v in group]
        for k in range(len(p)):
            others = p[:k] + p[k + 1 :]
            expected.append(len(p) * (math.log(sum(p) / len(p)) - math.log(sum(others) / len(others))))
    assert MultiSampleBound()(values, ids).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_loss_has_the_gradient_of_the_bound() -> None:
    """Its expectation over all groups of three traces, of two possible ones: that of log(1/K sum_k p_k)."""
    scores = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    values, prob = torch.tensor([0.8, 0.1], dtype=torch.float64).log(), scores.softmax(0)
    bound, loss = torch.zeros(()), torch.zeros(())
    for group in itertools.product([0, 1], repeat=3):
        traces = torch.tensor(group)
        chance, rewards = prob[traces].prod(), values[traces]
        bound = bound + chance * (rewards.logsumexp(0) - math.log(3))
        advantages = MultiSampleBound()(rewards, torch.zeros(3).long())
        loss = loss - chance.detach() * (advantages * prob[traces].log()).mean()
    (expected,), (got,) = torch.autograd.grad(bound, scores, retain_graph=True), torch.autograd.grad(loss, scores)
    torch.testing.assert_close(-got, expected)


def test_long_answers_do_not_underflow() -> None:
    near, far = (
        MultiSampleBound()(torch.tensor([-1.0, -2.0, -3.0]) - shift, torch.zeros(3).long()) for shift in (0, 5000)
    )
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)
    assert MultiSampleBound()(torch.tensor([-1.0, -900.0]), torch.zeros(2).long()).isfinite().all()


def test_rows_without_a_reward_are_excluded() -> None:
    three = MultiSampleBound()(torch.tensor([-1.0, -INF, -2.0]), torch.zeros(3).long())
    two = MultiSampleBound()(torch.tensor([-1.0, -2.0]), torch.zeros(2).long())
    assert three.tolist() == pytest.approx([1.5 * two[0].item(), 0, 1.5 * two[1].item()])
    assert MultiSampleBound()(torch.tensor([-1.0, -INF]), torch.zeros(2).long()).tolist() == [0, 0]


def test_a_reward_above_zero_is_refused() -> None:
    with pytest.raises(InputError, match="LogProb"):
        MultiSampleBound()(torch.tensor([0.5, 0.1]), torch.zeros(2).long())


@given(GROUPS)
def test_answer_weights_are_the_gradient_of_the_bound(groups: list[list[float]]) -> None:
    """Averaged over rollouts, the answer term is the gradient of log(1/K sum_k p_k)."""
    values, ids = flat(groups)
    leaf = values.clone().requires_grad_()  # log p_k of an answer of one token
    bound = sum(leaf[ids == g].logsumexp(0) for g in range(len(groups)))
    (grad,) = torch.autograd.grad(bound, leaf)
    weights = PosteriorTokenWeights()(torch.ones(len(ids), 1), torch.ones(len(ids), 1).bool(), ids, values)
    size = torch.bincount(ids)[ids]
    torch.testing.assert_close(weights.squeeze(1) / size, grad, rtol=1e-6, atol=1e-12, check_dtype=False)


def test_posterior_weights_exclude_rows_without_a_reward() -> None:
    ones, mask = torch.ones(4, 2), torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    values, ids = torch.tensor([math.log(0.6), math.log(0.2), -INF, -INF]), torch.tensor([0, 0, 0, 1])
    weights = PosteriorTokenWeights()(ones, mask, ids, values)
    expected = torch.tensor([[2.25, 2.25], [0.75, 0.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(weights, expected)
    with pytest.raises(InputError, match="values"):
        PosteriorTokenWeights()(ones, mask, ids)


@given(GROUPS, st.floats(0.1, 3))
def test_clipped_advantages_are_scaled_by_their_group_and_bounded(groups: list[list[float]], bound: float) -> None:
    values, ids = flat(groups)
    clipped = ClippedAdvantages(LeaveOneOut(), bound)(values, ids)
    for g in range(len(groups)):
        raw = LeaveOneOut()(values, ids)[ids == g]
        scaled = raw / raw.std() if raw.max() > raw.min() else torch.zeros_like(raw)
        torch.testing.assert_close(clipped[ids == g], scaled.clamp(-bound, bound), rtol=1e-6, atol=1e-9)


def test_clipped_advantages_have_the_needs_of_the_other_estimator() -> None:
    assert ClippedAdvantages(MultiSampleBound()).needs_logprobs
    assert not ClippedAdvantages().needs_logprobs
    assert ClippedAdvantages(GroupNormalized(baseline="clip")).needs_baseline
    with pytest.raises(InputError, match="bound"):
        ClippedAdvantages(bound=0)
