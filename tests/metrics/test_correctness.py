import itertools
import math

import pytest
import torch

from nrt_lightning.metrics import CorrectnessMetric, reward_correctness

REWARDS = torch.tensor([0.9, 0.2, 0.5, 0.5, 2000.0, 1500.0, 3.0, 0.1, -4.0, -4.0])
RIGHT = torch.tensor([1, 0, 1, 0, 0, 1, 0, 1, 0, 0]).bool()
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def pairs(rewards, right):
    """Of all pairs of a right and a wrong trace: the share in right order, ties half."""
    gaps = [a - b for (a, x), (b, y) in itertools.product(zip(rewards, right), repeat=2) if x and not y]
    return sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)


def tau_b(rewards, right):
    both = list(itertools.combinations(list(zip(rewards, right)), 2))
    order = sum(((a > b) - (a < b)) * (int(x) - int(y)) for (a, x), (b, y) in both)
    untied = sum(a != b for (a, _), (b, _) in both) * sum(x != y for (_, x), (_, y) in both)
    return order / math.sqrt(untied)


def in_groups(measure, groups=(0, 1)):
    parts = [(REWARDS[GROUPS.eq(g)].tolist(), RIGHT[GROUPS.eq(g)].tolist()) for g in groups]
    return sum(measure(*part) for part in parts) / len(parts)


def test_it_agrees_with_counting_pairs():
    values = {name: float(value) for name, value in reward_correctness(REWARDS, RIGHT, GROUPS).items()}
    assert values["auroc"] == pytest.approx(pairs(REWARDS.tolist(), RIGHT.tolist()))
    assert values["kendall"] == pytest.approx(tau_b(REWARDS.tolist(), RIGHT.tolist()), rel=1e-5)
    assert values["auroc_within"] == pytest.approx(in_groups(pairs))
    assert values["kendall_within"] == pytest.approx(in_groups(tau_b), rel=1e-5)
    assert values["right"] == pytest.approx(0.4)
    assert values["mixed_groups"] == pytest.approx(2 / 3)
    assert values["right_first"] == pytest.approx(0.5)
    assert values["right_first_by_chance"] == pytest.approx(0.5)


def test_large_rewards_keep_their_order():
    """A sigmoid, which torchmetrics applies to scores outside 0..1, would make ties of them."""
    rewards = torch.tensor([1500.0, 1400.0, 1300.0, 1200.0])
    assert float(reward_correctness(rewards, torch.tensor([1, 1, 0, 0]).bool(), torch.zeros(4))["auroc"]) == 1.0


@pytest.mark.parametrize("right", range(1, 8))
def test_the_ceiling_of_tau_is_what_the_docstring_says(right):
    """Of a perfect order of eight; where traces are equal it is higher."""
    good, share = torch.arange(8) >= 8 - right, right / 8
    tau = float(reward_correctness(torch.arange(8.0), good, torch.zeros(8))["kendall"])
    assert tau == pytest.approx(math.sqrt(2 * share * (1 - share) * 8 / 7), rel=1e-5)
    assert float(reward_correctness(good.float(), good, torch.zeros(8))["kendall"]) == pytest.approx(1)


def test_equal_rewards_have_no_order():
    values = reward_correctness(torch.ones(4), torch.tensor([1, 0, 1, 0]).bool(), torch.tensor([0, 0, 1, 1]))
    assert (float(values["auroc"]), float(values["kendall"]), float(values["right_first"])) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize("right", [True, False])
def test_nothing_is_claimed_where_all_traces_are_alike(right):
    values = reward_correctness(torch.rand(6), torch.full((6,), right), torch.arange(6) // 2)
    assert {name: float(value) for name, value in values.items()} == {"right": float(right), "mixed_groups": 0.0}


def test_batches_together_are_one():
    metric = CorrectnessMetric()
    for rows in (slice(0, 4), slice(4, 10)):
        metric.update(REWARDS[rows], RIGHT[rows], GROUPS[rows])
    whole = reward_correctness(REWARDS, RIGHT, GROUPS)
    assert {k: float(v) for k, v in metric.compute().items()} == pytest.approx({k: float(v) for k, v in whole.items()})
    metric.reset()
    assert metric.compute() == {}
