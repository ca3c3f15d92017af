import pytest
import torch
from tiny import sampled

from nrt_lightning.metrics import Max, Mean, ReasoningMetrics, Sum, group_metrics, rollout_metrics, signal_metrics
from nrt_lightning.metrics.scalars import combined


def test_means_over_uneven_batches_and_processes():
    """Two processes with 3 and 1 questions give what one process with all 4 gives."""
    one, two, whole = ReasoningMetrics(), ReasoningMetrics(), ReasoningMetrics()
    values = torch.tensor([0.1, 0.2, 0.3, 0.9])
    one.update(exact_match=values[:3] > 0.15, confidence=values[:3])
    two.update(exact_match=values[3:] > 0.15, confidence=values[3:])
    whole.update(exact_match=values > 0.15, confidence=values)
    for state in ("total", "count"):  # what torchmetrics does with states that are reduced by their sum
        setattr(one, state, getattr(one, state) + getattr(two, state))
        assert one._reductions[state] is not None
    assert {k: v.item() for k, v in one.compute().items()} == {k: v.item() for k, v in whole.compute().items()}
    assert whole.compute()["exact_match"] == pytest.approx(0.75)


def test_gain_is_of_the_means():
    metrics = ReasoningMetrics()
    metrics.update(confidence=torch.tensor([0.5, 0.1]), confidence_without_trace=torch.tensor([0.1, 0.2]))
    assert metrics.compute()["relative_confidence_gain"] == pytest.approx(0.3 / 0.15 - 1)
    metrics.reset()
    assert metrics.compute() == {}


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'exact_mach'.*'exact_match'"):
        ReasoningMetrics().update(exact_mach=torch.ones(1))


def test_group_metrics():
    values, groups = torch.tensor([1.0, 3.0, 2.0, 2.0]), torch.tensor([0, 0, 1, 1])
    metrics = group_metrics(values, torch.tensor([2.0, 2.0, 1.0, 1.0]), torch.tensor([-1.0, 1.0, 0.0, 0.0]), groups)
    assert {name: (float(s.value), int(s.count)) for name, s in metrics.items()} == {
        "reward": (2.0, 4),
        "reward_group_std": (pytest.approx(2**0.5 / 2), 4),
        "zero_variance_groups": (0.5, 4),
        "advantage_mean": (0.0, 4),
        "advantage_abs": (0.5, 4),
        "gain": (0.5, 4),
        "gain_positive_share": (0.75, 4),
    }
    assert "gain" not in group_metrics(values, None, values, groups)


def test_rollout_metrics(policy):
    rollouts = sampled(policy, group_size=4)
    metrics = rollout_metrics(rollouts, torch.ones_like(rollouts.completion_ids, dtype=torch.float))
    lengths = rollouts.segments.trace_mask.sum(1).float()
    assert metrics["trace_tokens"] == Mean(lengths.mean(), torch.tensor(12))
    assert metrics["trace_tokens_max"] == Max(lengths.max())
    assert metrics["trace_entropy"] == Mean(torch.tensor(1.0), lengths.sum())
    traces = {
        (int(group), *ids[mask].tolist())
        for group, ids, mask in zip(rollouts.group_ids, rollouts.completion_ids, rollouts.segments.trace_mask)
    }
    assert metrics["unique_traces"].value == pytest.approx(len(traces) / 12)


def test_the_mean_reward_leaves_out_rows_without_one():
    values, groups = torch.tensor([-1.0, -float("inf"), -3.0, float("nan")]), torch.tensor([0, 0, 0, 0])
    metrics = group_metrics(values, torch.zeros(4), torch.zeros(4), groups)
    assert metrics["reward"] == metrics["gain"] == Mean(torch.tensor(-2.0), torch.tensor(2))


def test_signals_are_averaged_over_rollouts_that_have_one():
    metrics = signal_metrics({"a": torch.tensor([1.0, float("nan"), 3.0, -float("inf")])})
    assert metrics == {"signal_a": Mean(torch.tensor(2.0), torch.tensor(2)), "signal_a_failed": Sum(torch.tensor(1.0))}


@pytest.mark.parametrize(
    ("scalars", "expected"),
    [
        ([Mean(torch.tensor(1.0), 3), Mean(torch.tensor(5.0), torch.tensor(1))], 2.0),
        ([Mean(torch.tensor(1.0)), Mean(torch.tensor(5.0))], 3.0),
        ([Mean(torch.tensor(1.0), 3), Mean(torch.tensor(float("nan")), 0)], 1.0),  # a process without such things
        ([Mean(torch.tensor(0.0), 0), Mean(torch.tensor(0.0), 0)], 0.0),
        ([Max(torch.tensor(1.0)), Max(torch.tensor(5.0))], 5.0),
        ([Sum(torch.tensor(1)), Sum(torch.tensor(5))], 6.0),
    ],
)
def test_scalars_of_two_processes(scalars, expected, monkeypatch):
    def all_gather(everywhere, here):
        everywhere[0].copy_(here)
        everywhere[1].copy_(torch.tensor([float(scalars[1].value), float(scalars[1].count)]))

    monkeypatch.setattr("torch.distributed.all_gather", all_gather)
    assert combined({"x": scalars[0]}, torch.device("cpu"), 2) == {"x": expected}
    assert combined({"x": scalars[0]}, torch.device("cpu"), 1) == {"x": scalars[0].value}
