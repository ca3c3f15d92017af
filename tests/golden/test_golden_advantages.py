from __future__ import annotations

import pytest
import torch
from golden_vectors import cases, dtype_of, numbers, score

from nrt_lightning.advantages import GroupNormalized
from nrt_lightning.rewards import DerivedTokenWeights, FixedTokenWeights

CASES = cases("advantages")
IDS = [f"{c['name']}-{'-'.join(map(str, c['config'].values()))}" for c in CASES]


def ids_of(groups: list[str]) -> torch.Tensor:
    names = sorted(set(groups))
    return torch.tensor([names.index(group) for group in groups])


def tolerance(case: dict) -> dict[str, float]:
    if case["config"]["dtype"] == "float32":
        return {"rtol": 1e-3, "atol": 1e-5}
    if case["name"] == "tiny_variance_group":
        return {"rtol": 1e-4, "atol": 0.0}
    exact = case["config"]["reward_aggregation"] != "arithmetic_mean"
    return {"rtol": 1e-9 if exact else 1e-6, "atol": 1e-12}


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_advantages_equal_the_authors(case: dict) -> None:
    config, inputs, outputs, tol = case["config"], case["inputs"], case["outputs"], tolerance(case)
    value, token_weights, answer_mask = score(config["reward_aggregation"], inputs, dtype_of(case))
    group_ids = ids_of(inputs["group"])
    estimator = GroupNormalized(scale=config["scale"] or "none", center=config["center"] is not None)
    advantages = estimator(value, group_ids)
    assert advantages.isfinite().all()
    official = numbers(outputs["advantage"], value.dtype)
    if case["name"] == "singleton_group":
        # The official advantage of a group of one is NaN, ours is 0; the other group is the same.
        alone = torch.bincount(group_ids)[group_ids] == 1
        assert official[alone].isnan().all()
        assert (advantages[alone] == 0).all()
        advantages, official = advantages[~alone], official[~alone]
    if case["name"] == "empty_answer_in_group":
        # The row without an answer is officially the best of its group; ours is the worst, in the same order otherwise.
        empty = ~answer_mask.any(1)
        assert official.argmax() == advantages.argmin() == empty.int().argmax()
        assert torch.equal(advantages[~empty].argsort(), official[~empty].argsort())
        return
    torch.testing.assert_close(advantages, official, **tol)

    weighting = (
        FixedTokenWeights()
        if config["use_fixed_token_reward"]
        else DerivedTokenWeights(center=config["center"] is not None, scale=config["scale"] is not None)
    )
    weights = weighting(token_weights, answer_mask, group_ids)
    assert (weights[~answer_mask] == 0).all()
    if config["use_fixed_token_reward"]:
        assert (weights[answer_mask] == 1).all()
    else:
        torch.testing.assert_close(
            weights[answer_mask], numbers(outputs["token_reward"], value.dtype)[answer_mask], **tol
        )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_group_of_equal_rewards_has_advantage_exactly_zero(dtype: str) -> None:
    case = next(c for c in CASES if c["name"] == "zero_variance_group" and c["config"]["dtype"] == dtype)
    value, _, _ = score("weighted_sum_log_prob", case["inputs"], dtype_of(case))
    advantages = GroupNormalized()(value, ids_of(case["inputs"]["group"]))
    equal = torch.tensor([group == "q1" for group in case["inputs"]["group"]])
    assert (advantages[equal] == 0).all()
    assert (advantages[~equal] != 0).all()
