"""Plain weights: what a plain model needs to compute what the policy computes."""

from __future__ import annotations

import pytest
import torch
from tiny import save_tiny
from transformers import AutoModelForCausalLM

from nrt_lightning import FourBit, LoRA, Policy
from nrt_lightning.export.merging import merged
from nrt_lightning.models.policy.plain_weights import plain_weights

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
    ids[0, 3] = policy.marker_id
    with torch.no_grad():
        ours, theirs = policy.network(ids).logits, plain_model(policy)(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_gpt2_keeps_its_weights_turned(kind, tmp_path):
    policy = trained(Policy(save_tiny(tmp_path, "gpt2"), adapter=KINDS[kind]).load())
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(policy.network(ids).logits, plain_model(policy)(ids).logits, atol=1e-4)


def test_four_bits_are_dequantized_before_an_adapter_is_merged(tmp_path):
    base = save_tiny(tmp_path, "llama", tied=False)
    policy = trained(Policy(base, adapter=LoRA(rank=4), quantization=FourBit(compute_dtype="float32")).load())
    expected = merged(policy, torch.float32).state_dict()
    found = dict(plain_weights(policy))
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], weight, atol=1e-5) for name, weight in expected.items())


def test_the_policy_stays_as_it_is(policy):
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    list(plain_weights(policy))
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())
