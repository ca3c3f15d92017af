"""Plain weights: what a plain model needs to compute what the policy computes."""

from __future__ import annotations

import pytest
import torch
from tiny import save_tiny
from transformers import AutoModelForCausalLM

from nrt_lightning import FourBit, LoRA, Policy
from nrt_lightning.models.policy.plain_weights import plain_config, plain_weights

KINDS = {
    "full": None,
    "lora": LoRA(rank=4),
    "without rows": LoRA(rank=4, marker_rows=False),
    "dora": LoRA(rank=4, dora=True),
    "rslora": LoRA(rank=4, rslora=True, targets=["c_attn", "q_proj"][1:]),
}


def trained(policy: Policy) -> Policy:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy.eval()


def plain_model(policy: Policy):
    model = AutoModelForCausalLM.from_config(policy.config, dtype=torch.float32)
    model.resize_token_embeddings(policy.network.get_input_embeddings().weight.shape[0])
    missing, unexpected = model.load_state_dict(dict(plain_weights(policy)), strict=False)
    assert unexpected == []
    assert missing == []
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_plain_model_of_these_weights_computes_what_the_policy_computes(kind, tied, tmp_path):
    policy = trained(Policy(save_tiny(tmp_path, "llama", tied), adapter=KINDS[kind]).load())
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(1))
    ids[0, 3] = policy.markup.marker_ids[0]
    with torch.no_grad():
        ours, theirs = policy.network(ids).logits, plain_model(policy)(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_gpt2_keeps_its_weights_turned(kind, tmp_path):
    policy = trained(Policy(save_tiny(tmp_path, "gpt2"), adapter=KINDS[kind]).load())
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(policy.network(ids).logits, plain_model(policy)(ids).logits, atol=1e-4)


@pytest.mark.parametrize(("family", "targets"), [("llama", "all-linear"), ("gpt2", "all-linear"), ("gpt2", ["c_fc"])])
def test_four_bits_are_dequantized_before_an_adapter_is_merged(family, targets, tmp_path):
    adapter, quantization = LoRA(rank=4, targets=targets), FourBit(compute_dtype="float32")
    policy = trained(Policy(save_tiny(tmp_path, family), adapter=adapter, quantization=quantization).load())
    plain = AutoModelForCausalLM.from_config(plain_config(policy.network), dtype=torch.float32).eval()
    plain.load_state_dict(dict(plain_weights(policy)))
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(policy.network(ids).logits, plain(ids).logits, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_are_summed_in_float32_and_given_in_the_dtype_asked_for(dtype, tmp_path):
    policy = trained(Policy(save_tiny(tmp_path, "llama"), adapter=LoRA(rank=4), dtype="bfloat16").load())
    layer = policy.network.model.layers[0].mlp.up_proj
    update = layer.scaling["default"] * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)
    found = dict(plain_weights(policy, dtype))
    expected = (layer.base_layer.weight.float() + update.float()).to(dtype)
    assert torch.equal(found["model.layers.0.mlp.up_proj.weight"], expected)
    assert {weight.dtype for weight in found.values()} == {dtype}


def test_the_policy_stays_as_it_is(policy):
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    list(plain_weights(policy))
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())
