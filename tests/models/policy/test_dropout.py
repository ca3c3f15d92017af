"""The base's own dropout is off, unless asked for."""

from __future__ import annotations

import pytest
import torch
from tiny import BASE, sampled, tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig

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
