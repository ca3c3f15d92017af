"""Precisions in which training cannot work are refused, and those that round updates off are named."""

from __future__ import annotations

import pytest
import torch
from short_runs import nrt_module, registers
from tiny import BASE
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning import InputError, LoRA, Policy, SFTModule


def fit(trainer, precision, sft=False, **settings):
    policy = Policy(BASE, **settings)
    module = SFTModule(policy) if sft else nrt_module(policy=policy)
    trainer(max_steps=1, precision=precision, limit_val_batches=0).fit(module, registers())
    return policy


@pytest.mark.parametrize("sft", [False, True])
@pytest.mark.parametrize(
    ("precision", "settings", "names"),
    [
        ("16-true", {}, r"trainer\.precision is 16-true"),
        ("32-true", {"dtype": "float16"}, r"policy\.dtype is float16"),
        ("bf16-mixed", {"dtype": "float16"}, r"policy\.dtype is float16"),
        ("32-true", {"dtype": "float16", "adapter": LoRA(rank=2)}, r"policy\.dtype is float16"),
        ("32-true", {"adapter": LoRA(rank=2, dtype="float16")}, r"policy\.adapter\.dtype is float16"),
    ],
)
def test_training_in_float16_is_refused_before_weights_are_read(trainer, precision, settings, names, sft):
    with pytest.raises(InputError, match=names + ".*bf16-mixed.*16-mixed"):
        fit(trainer, precision, sft, **settings)


def test_a_live_model_in_float16_is_refused(trainer):
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float16)
    module = nrt_module(policy=Policy(model, tokenizer=AutoTokenizer.from_pretrained(BASE)))
    with pytest.raises(InputError, match=r"policy\.dtype is float16"):
        trainer(max_steps=1).fit(module, registers())


@pytest.mark.parametrize(
    ("precision", "settings", "names"),
    [
        ("32-true", {"dtype": "bfloat16"}, "policy.dtype is bfloat16"),
        ("bf16-mixed", {"dtype": "bfloat16"}, "policy.dtype is bfloat16"),
        ("bf16-true", {}, "trainer.precision is bf16-true"),
        ("32-true", {"adapter": LoRA(rank=2, dtype="bfloat16")}, "policy.adapter.dtype is bfloat16"),
    ],
)
def test_trained_weights_in_bfloat16_are_warned_of_once_with_the_reason(trainer, caplog, precision, settings, names):
    fit(trainer, precision, **settings)
    [message] = [record.message for record in caplog.records if "rounded off" in record.message]
    assert names in message
    assert "float32" in message
    assert "bf16-mixed" in message


@pytest.mark.parametrize(
    ("precision", "settings"),
    [("bf16-mixed", {}), ("32-true", {"dtype": "bfloat16", "adapter": LoRA(rank=2)}), ("32-true", {})],
)
def test_what_keeps_small_updates_gives_no_warning(trainer, caplog, precision, settings):
    fit(trainer, precision, **settings)
    assert "rounded off" not in caplog.text
