"""While tokens are sampled, linear layers compute the same products with fewer operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from operations import Operations

from benchmarks.measure import flop_counter
from benchmarks.workload import Workload, build_policy, prompts
from nrt_lightning import Policy, TransformersEngine, models
from nrt_lightning.functional import products
from nrt_lightning.models.scoring.base import last_logits
from nrt_lightning.rollouts import trace_request
from nrt_lightning.rollouts import transformers_engine as engine_module
from nrt_lightning.rollouts.decoding_weights import arranges, decoding_weights

WORK = Workload(vocabulary=64, hidden=32, intermediate=48, layers=2, heads=4, kv_heads=2, group_size=2)
IDS = torch.tensor([[5, 9, 30], [7, 7, 12]])


def adapted(base: torch.dtype = torch.float32, size: float = 0.1, **settings: Any) -> Policy:
    """A policy whose adapter changes the base."""
    policy = build_policy(WORK, dtype=base, adapter=models.LoRA(rank=4, marker_rows=False, **settings)).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data = size * torch.randn(parameter.shape, generator=generator).to(parameter)
    return policy


@torch.no_grad()
def logits(policy: Policy) -> torch.Tensor:
    return policy.network(input_ids=IDS, use_cache=False).logits.float()


def counted(policy: Policy) -> Counter[str]:
    with Operations() as operations:
        logits(policy)
    return operations.counts


CASES = {
    "all weights": lambda: build_policy(WORK).eval(),
    "adapter": adapted,
    "scaled by the root of the rank": lambda: adapted(rslora=True),
    "magnitudes": lambda: adapted(dora=True),
    "16 bits": lambda: adapted(torch.bfloat16),
    "16 bits throughout": lambda: adapted(torch.bfloat16, dtype="bfloat16"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mixed", [False, True])
def test_logits_are_the_same(case: str, mixed: bool) -> None:
    policy = CASES[case]()
    half = mixed or policy.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        expected = logits(policy)
        with decoding_weights(policy.network):
            found = logits(policy)
        assert torch.equal(logits(policy), expected), "restored"
    torch.testing.assert_close(found, expected, atol=0.1 if half else 1e-5, rtol=0.06 if half else 1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_same_where_float32_weights_are_arranged(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "mkl_is_narrow", lambda: True)
    monkeypatch.setattr(products, "LEAST", 1)
    test_logits_are_the_same(case, mixed=False)
    if case == "adapter":
        with decoding_weights((policy := adapted()).network), flop_counter() as counter:
            logits(policy)
        assert counter.get_flop_counts()["Global"].keys() >= {torch.ops.mkldnn._linear_pointwise}


def test_an_adapted_layer_is_one_product_in_float32() -> None:
    policy = adapted()
    before = counted(policy)
    with decoding_weights(policy.network):
        inside = counted(policy)
    layers = 7 * WORK.layers
    assert before["mm"] + before["addmm"] == 3 * layers + 1
    assert inside["mm"] + inside["addmm"] == layers + 1


def test_factors_are_scaled_once_in_16_bits() -> None:
    policy = adapted(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        before = counted(policy)
        with decoding_weights(policy.network):
            inside = counted(policy)
    layers = 7 * WORK.layers
    assert before["mul"] - inside["mul"] == layers
    assert before["_to_copy"] - inside["_to_copy"] >= 2 * layers


def test_small_updates_of_16_bit_weights_are_not_rounded_away() -> None:
    """Half of the last place of a bfloat16 weight of 1 is 0.4 %: the sum of weight and update would be the weight."""
    policy = adapted(torch.bfloat16, size=1e-4)
    layer: Any = policy.network.get_submodule("model.layers.0.mlp.up_proj")
    layer.base_layer.weight.data.fill_(1.0)
    x = torch.randn(4, WORK.hidden, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(dim=1, keepdim=True)).bfloat16()
    with torch.no_grad(), policy.adapter_disabled():
        base = layer(x)
    with torch.no_grad(), decoding_weights(policy.network):
        found = layer(x)
    assert not torch.equal(found, base)


def test_a_disabled_adapter_stays_disabled() -> None:
    policy = adapted()
    with policy.adapter_disabled():
        expected = logits(policy)
        with decoding_weights(policy.network):
            torch.testing.assert_close(logits(policy), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(policy), expected, atol=1e-3)


def test_the_head_after_a_prompt_uses_its_copy_and_keeps_it() -> None:
    policy = build_policy(WORK).eval()
    head = policy.network.get_output_embeddings()
    inputs = {"input_ids": IDS, "use_cache": False}
    with torch.no_grad():
        expected = last_logits(policy.network, inputs)
        with decoding_weights(policy.network):
            copied = vars(head)["forward"]
            head.weight.data.neg_()  # not read
            torch.testing.assert_close(last_logits(policy.network, inputs), expected, atol=1e-5, rtol=1e-5)
            assert vars(head)["forward"] is copied
    assert "forward" not in vars(head)


def test_the_engine_samples_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = adapted()
    request = trace_request(policy, prompts(WORK, 0), WORK.sampling, seed=1)
    request.logprobs = True
    entered = []

    def recorded(model: Any) -> Any:
        entered.append(model)
        return decoding_weights(model)

    monkeypatch.setattr(engine_module, "decoding_weights", recorded)
    found = TransformersEngine().generate(policy, request)
    assert entered == [policy.network]
    policy.model.merge_adapter()
    expected = TransformersEngine().generate(policy, request)
    assert torch.equal(found.token_ids, expected.token_ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=3e-5, rtol=1e-4)


def test_layers_are_restored_after_an_error() -> None:
    policy = adapted()
    with pytest.raises(RuntimeError), decoding_weights(policy.network):
        raise RuntimeError
    assert not [name for name, module in policy.named_modules() if "forward" in vars(module)]


@pytest.mark.skipif(not arranges(), reason="oneDNN has no products in bfloat16 here")
@pytest.mark.parametrize("case", ["16 bits", "16 bits throughout"])
def test_weights_in_bfloat16_are_arranged_once_and_no_product_is_left_out(case: str) -> None:
    policy = CASES[case]()
    mixed = case == "16 bits"
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), flop_counter() as plain:
        logits(policy)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), decoding_weights(policy.network):
        with flop_counter() as counter:
            logits(policy)
        operations = counted(policy)
    assert counter.get_total_flops() == plain.get_total_flops()
    linear = sum(type(module) is torch.nn.Linear for module in policy.network.modules())
    adapted = sum(hasattr(module, "lora_A") for module in policy.network.modules())
    assert operations["_linear_pointwise"] == linear - adapted, "the outer factor is part of the base's product"
    assert operations["addmm"] == operations["mm"] == 0
