"""The preset `nrt_authors`, built by the command line, reproduces the authors' code."""

from __future__ import annotations

import pytest
import torch
from golden_vectors import cases, dtype_of, mask, number, numbers, score
from methods.test_presets import module_of

from nrt_lightning import Method
from nrt_lightning.losses import LossInputs
from nrt_lightning.structures import Segments


@pytest.fixture(scope="module")
def preset() -> Method:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["nrt-lightning"])
        patch.setenv("PL_GLOBAL_SEED", "0")
        return module_of("nrt_authors").method


LOSSES = [(c, o) for c in cases("loss") for o in c["outputs"] if o["scale_factor"] == 512]
ADVANTAGES = [
    case
    for case in cases("advantages")
    if case["config"]["reward_aggregation"] == "weighted_sum_log_prob"
    and (case["config"]["center"], case["config"]["scale"]) == ("mean", "std")
    and case["config"]["use_fixed_token_reward"]
    and case["name"] not in ("singleton_group", "empty_answer_in_group")  # ours differs on purpose
]


@pytest.mark.parametrize(("case", "output"), LOSSES, ids=lambda x: x.get("name", ""))
def test_loss(preset: Method, case: dict, output: dict) -> None:
    inputs, dtype = case["inputs"], dtype_of(case)
    segments = Segments(
        *(mask(inputs[f"{part}_mask"]) for part in ("trace", "marker", "answer")),
        torch.tensor(inputs["marker_matched"]),
    )
    names = {"logprobs": "log_prob", "old_logprobs": "old_log_prob", "advantages": "advantage"}
    tensors = {name: numbers(inputs[key], dtype) for name, key in (names | {"token_weights": "token_reward"}).items()}
    out = preset.loss(LossInputs(segments=segments, **tensors))
    tolerance = {"rel": 1e-10} if dtype == torch.float64 else {"rel": 1e-5}
    assert float(out.loss) == pytest.approx(number(output["loss"]), **tolerance)


@pytest.mark.parametrize("case", ADVANTAGES, ids=lambda case: f"{case['config']['dtype']}-{case['name']}")
def test_advantages(preset: Method, case: dict) -> None:
    inputs, single = case["inputs"], case["config"]["dtype"] == "float32"
    value, token_weights, answer_mask = score("weighted_sum_log_prob", inputs, dtype_of(case))
    assert preset.aggregator.name == "weighted_sum_neg_log_prob"
    names = sorted(set(inputs["group"]))
    ids = torch.tensor([names.index(group) for group in inputs["group"]])
    official = numbers(case["outputs"]["advantage"], value.dtype)
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if single else {"rtol": 1e-4, "atol": 1e-12}
    torch.testing.assert_close(preset.advantage(value, ids), official, **tolerance)
    assert (preset.token_weights(token_weights, answer_mask, ids, value)[answer_mask] == 1).all()
