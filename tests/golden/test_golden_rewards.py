from __future__ import annotations

import pytest
import torch
from golden_vectors import AGGREGATORS, cases, mask, numbers, score

CASES = [(dtype, case) for dtype in ("float64", "float32") for case in cases(f"rewards_{dtype}")]


def tolerance(aggregation: str, dtype: str) -> dict[str, float]:
    if dtype == "float32":
        return {"rtol": 2e-5, "atol": 1e-7}
    return {"rtol": 1e-6 if aggregation == "arithmetic_mean" else 1e-12, "atol": 0.0}


@pytest.mark.parametrize("aggregation", AGGREGATORS)
@pytest.mark.parametrize(("dtype", "case"), CASES, ids=[f"{d}-{c['name']}" for d, c in CASES])
def test_reward_equals_the_authors(dtype: str, case: dict, aggregation: str) -> None:
    expected = case["outputs"][aggregation]
    value, token_weights, answer_mask = score(aggregation, case["inputs"], getattr(torch, dtype))
    assert value.dtype == getattr(torch, dtype)
    if "raises" in expected:
        return  # the official code raises; see test_reward_where_the_authors_raise
    tol = tolerance(aggregation, dtype)
    official = numbers(expected["trace_reward"], value.dtype)
    some = answer_mask.any(1)  # empty answers are tested below
    torch.testing.assert_close(value[some], official[some], **tol)
    closed_form = numbers(expected["trace_reward_closed_form"], value.dtype)
    known = closed_form.isfinite() & some
    exact = tol if dtype == "float32" else {"rtol": 1e-12, "atol": 0.0}
    torch.testing.assert_close(value[known], closed_form[known], **exact)
    if "token_reward" in expected:
        torch.testing.assert_close(token_weights, numbers(expected["token_reward"], value.dtype), **tol)


RAISING = [
    (dtype, case, name) for dtype, case in CASES for name, output in case["outputs"].items() if "raises" in output
]


@pytest.mark.parametrize(("dtype", "case", "aggregation"), RAISING, ids=[f"{d}-{c['name']}-{a}" for d, c, a in RAISING])
def test_reward_where_the_authors_raise(dtype: str, case: dict, aggregation: str) -> None:
    """Here every reward is defined, and infinite only for an impossible answer."""
    inputs = case["inputs"]
    value, token_weights, answer_mask = score(aggregation, inputs, getattr(torch, dtype))
    assert token_weights.isfinite().all()
    c = numbers(inputs["log_prob"])[answer_mask].exp().split(answer_mask.sum(1).tolist())
    b = numbers(inputs["base_log_prob"])[mask(inputs["base_answer_mask"])].split(answer_mask.sum(1).tolist())
    if case["name"] == "baseline_underflow":  # c/b would overflow: finite, and the largest
        assert value.isfinite().all()
        assert value.argmax() == 1
        return
    formula = {
        "log_prob": lambda c, b: c.log().sum(),
        "prob": lambda c, b: c.prod(),
        "geometric_mean": lambda c, b: c.log().mean().exp(),
        "weighted_sum_log_prob": lambda c, b: (-b.clamp(max=0) * c).mean(),  # a log-prob of 1e-7 counts as 0
    }[aggregation]
    expected = torch.stack([formula(ci, bi) for ci, bi in zip(c, b, strict=True)]).to(value.dtype)
    torch.testing.assert_close(value, expected, **tolerance(aggregation, dtype))


def test_all_official_errors_are_covered() -> None:
    assert len(RAISING) == 12
    assert {name for _, case, name in RAISING if case["name"] == "baseline_log_prob_positive"} == {
        "weighted_sum_log_prob"
    }


@pytest.mark.parametrize("aggregation", AGGREGATORS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_empty_answer_has_the_lowest_reward(dtype: str, aggregation: str) -> None:
    """Officially it is 1 under prob and geometric_mean, and 0, the highest, under log_prob."""
    case = next(c for c in cases(f"rewards_{dtype}") if c["name"] == "empty_answer_row")
    value, token_weights, answer_mask = score(aggregation, case["inputs"], getattr(torch, dtype))
    assert answer_mask.any(1).tolist() == [True, False, True]
    assert value[1] == (float("-inf") if aggregation == "log_prob" else 0)
    assert value.argmin() == 1
    assert (token_weights[1] == 0).all()
