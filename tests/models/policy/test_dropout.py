"""The base's own dropout and jitter are off, unless asked for."""

from __future__ import annotations

import pytest
import torch
from tiny import BASE, sampled, tiny_config
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    MixtralConfig,
    OPTConfig,
    PhimoeConfig,
)

from nrt_lightning import LoRA, Policy, export_policy

VOCAB = {"vocab_size": 72, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture(scope="module", params=["gpt2", "llama", "opt"])
def with_dropout(request, tmp_path_factory):
    """Modules (GPT-2), an attribute of attention (Llama), and a function with an attribute (OPT)."""
    if request.param == "opt":
        config = OPTConfig(**VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
                           max_position_embeddings=256, word_embed_proj_dim=32, dropout=0.3)  # fmt: skip
    else:
        config = tiny_config(request.param)
        for name in ("resid_pdrop", "attn_pdrop", "embd_pdrop", "attention_dropout"):
            if hasattr(config, name):
                setattr(config, name, 0.3)
    place = tmp_path_factory.mktemp(request.param)
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(place)
    return str(place)


def twice(policy):
    """Two scores of the same rollouts in train mode."""
    rollouts = sampled(policy)
    torch.manual_seed(3)
    with torch.no_grad():
        return [policy.score(rollouts).logprobs for _ in range(2)]


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2)], ids=["whole", "lora"])
def test_two_scores_of_the_same_rollouts_are_equal(with_dropout, adapter):
    first, second = twice(Policy(with_dropout, adapter=adapter).load().train())
    assert torch.equal(first, second)


def test_dropout_that_is_asked_for_and_that_of_an_adapter_stay(with_dropout):
    first, second = twice(Policy(with_dropout, dropout=True).load().train())
    assert not torch.allclose(first, second)
    policy = Policy(with_dropout, adapter=LoRA(rank=2, dropout=0.5)).load().train()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter += 0.5
    first, second = twice(policy)
    assert not torch.allclose(first, second)


def test_the_configuration_keeps_its_dropout(with_dropout, tmp_path):
    before, policy = Policy(with_dropout).config, Policy(with_dropout).load()
    after = Policy(str(export_policy(policy, tmp_path / "m"))).config
    for name in ("resid_pdrop", "attention_dropout", "dropout"):
        assert getattr(after, name, None) == getattr(before, name, None)


SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3, **VOCAB}
EXPERTS = {"intermediate_size": 48, "num_key_value_heads": 2, "num_local_experts": 4, **SHAPE}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(router_jitter_noise=0.1, **EXPERTS),
        PhimoeConfig(router_jitter_noise=0.01, input_jitter_noise=0.1, **EXPERTS),  # samples experts in train mode
        FalconConfig(hidden_dropout=0.3, **SHAPE),  # read from the configuration
    ],
    ids=["mixtral", "phimoe", "falcon"],
)
def test_train_mode_scores_as_eval_mode(config, checkpointing):
    torch.manual_seed(0)
    model, tokenizer = AutoModelForCausalLM.from_config(config), AutoTokenizer.from_pretrained(BASE)
    policy = Policy(model, tokenizer=tokenizer, activation_checkpointing=checkpointing).load().train()
    first, second = twice(policy)
    assert all(module.training for module in policy.network.modules())
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    policy.eval()
    torch.testing.assert_close(first, twice(policy)[0])


def test_jitter_that_is_asked_for_stays():
    config = MixtralConfig(router_jitter_noise=0.1, **EXPERTS)
    model, tokenizer = AutoModelForCausalLM.from_config(config), AutoTokenizer.from_pretrained(BASE)
    first, second = twice(Policy(model, tokenizer=tokenizer, dropout=True).load().train())
    assert not torch.allclose(first, second)
