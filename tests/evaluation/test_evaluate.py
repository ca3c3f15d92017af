import pytest
import torch
from short_runs import nrt_module
from tiny import make_prompts

from nrt_lightning import Policy
from nrt_lightning.evaluation.evaluate import checked_matches, holds, with_checks
from nrt_lightning.metrics import ReasoningMetrics


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy("embedded:registers-base").load()


@pytest.mark.parametrize(
    ("text", "pieces", "held"),
    [
        ("e is 2, b 3", ("e is 2", "b 3"), True),
        ("b 3, e is 2", ("e is 2", "b 3"), False),
        ("e is 2", ("e is 2", "e is 2"), False),
        ("e is 3, b 3", ("e is 2", "b 3"), False),
        ("anything", (), True),
    ],
)
def test_pieces_are_held_one_after_another(text, pieces, held):
    assert holds(text, pieces) == held


def test_only_rows_that_check_something_are_counted(policy):
    prompts = make_prompts(policy, ["a4b*2c+2d+3?dc:"] * 4, ["d3,c0"] * 4)
    for row, checks in zip(prompts.rows, [("d3",), ("d4",), (), ("d3",)]):
        row.checks = checks
    prompts.counted = torch.tensor([True, True, True, False])
    assert with_checks(prompts).tolist() == [True, True, False, False]
    held = checked_matches(prompts, ["d3,c4"] * 4)
    assert held.tolist() == [True, False, True, True]
    metrics = ReasoningMetrics()
    metrics.update(counted=with_checks(prompts), checked_match=held)
    assert metrics.compute()["checked_match"] == 0.5


def test_rows_without_checks_report_none(policy):
    module = nrt_module(policy=policy)
    prompts = make_prompts(policy, ["a4b*2c+2d+3?dc:"], ["d3,c0"])
    found = module.evaluate(prompts)
    assert "checked_match" not in module.metrics.compute()
    assert found.logprobs.shape == found.baseline_logprobs.shape == prompts.answer_ids.shape
    prompts.rows[0].checks = ("3",)
    module.evaluate(prompts)
    assert module.metrics.compute()["checked_match_forced"] in (0, 1)
