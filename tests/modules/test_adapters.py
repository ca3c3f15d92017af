"""Runs of LoRA and QLoRA policies: what they keep, how they resume, and what is refused before weights are read."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import BitsandbytesPrecision
from short_runs import Recorder, nrt_module, registers, weights
from tiny import BASE
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning import (
    AdapterDisabledReference,
    ConstantSchedule,
    FourBit,
    FrozenReference,
    InputError,
    KLPenalty,
    LoRA,
    NRTLoss,
    NRTModule,
    Policy,
    QuantizedReference,
)

KINDS = {
    "lora": {"adapter": LoRA(rank=2, dropout=0.1)},
    "qlora": {"adapter": LoRA(rank=2, dropout=0.1), "quantization": FourBit()},
}


def paged(params):
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit(params, lr=1e-3, min_8bit_size=64)  # so that these tiny weights are in 8 bits too


def run(trainer, directory, max_steps, ckpt_path=None, source=BASE, data=None, **settings):
    recorder = Recorder()
    checkpoint = ModelCheckpoint(directory, save_last=True, every_n_train_steps=1, save_top_k=0)
    module = nrt_module(schedule=ConstantSchedule(warmup=0), **settings)
    made = trainer(callbacks=[recorder, checkpoint], max_steps=max_steps, enable_checkpointing=True)
    made.fit(module, data or registers(val=None), ckpt_path=ckpt_path)
    return module, recorder, str(directory / "last.ckpt")


@pytest.mark.parametrize(
    ("kind", "optimizer"), [("lora", None), pytest.param("qlora", None, marks=pytest.mark.slow), ("qlora", paged)]
)
def test_resumed_equals_uninterrupted(trainer, tmp_path, kind, optimizer):
    optimizers = {"optimizer": optimizer} if optimizer else {}

    def go(name, steps, ckpt_path=None):
        return run(trainer, tmp_path / name, steps, ckpt_path, policy=Policy(BASE, **KINDS[kind]), **optimizers)

    whole, all_rows, _ = go("whole", 4)
    _, _, checkpoint = go("half", 2)
    torch.manual_seed(1234)  # whatever was drawn in between must not matter
    resumed, rest, _ = go("rest", 4, checkpoint)
    for before, after in zip(all_rows.batches[2:], rest.batches, strict=True):
        assert torch.equal(before.rollouts.completion_ids, after.rollouts.completion_ids)
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    fresh = Policy(BASE, **KINDS[kind]).load()
    changed = [name for name, p in fresh.named_parameters() if not torch.equal(p, got[f"{name}"])]
    assert changed
    assert set(changed) <= set(fresh.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_what_is_trained_alone(trainer, tmp_path, kind):
    settings = KINDS[kind] | {"adapter": LoRA(rank=2, targets=["q_proj", "v_proj"])}
    *_, full = run(trainer, tmp_path / "full", 1, policy=Policy(BASE))
    module, _, small = run(trainer, tmp_path / kind, 1, policy=Policy(BASE, **settings))
    assert Path(small).stat().st_size < 0.05 * Path(full).stat().st_size
    kept = torch.load(small, weights_only=True)
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert list(kept["state_dict"]) == trained
    assert len(kept["optimizer_states"][0]["state"]) == len(trained)
    again = NRTModule.load_from_checkpoint(small, policy=Policy(BASE, **settings))
    assert all(torch.equal(a, b) for a, b in zip(module.policy.parameters(), again.policy.parameters(), strict=True))


@pytest.fixture
def checkpoint(trainer, tmp_path):
    return run(trainer, tmp_path / "c", 1, policy=Policy(BASE, **KINDS["lora"]))[2]


def test_the_base_may_lie_elsewhere_but_must_be_the_same(trainer, tmp_path, checkpoint):
    base = Policy(BASE).load()
    for directory in (tmp_path / "moved", tmp_path / "other"):
        base.network.save_pretrained(directory)
        AutoTokenizer.from_pretrained(BASE).save_pretrained(directory)
    moved, other = (str(tmp_path / name) for name in ("moved", "other"))
    *_, here = run(trainer, tmp_path / "here", 1, policy=Policy(moved, **KINDS["lora"]))
    run(trainer, tmp_path / "again", 2, here, policy=Policy(other, **KINDS["lora"]))
    with torch.no_grad():
        base.network.model.layers[1].mlp.up_proj.weight[3, 3] += 1e-3
    base.network.save_pretrained(other)
    with pytest.raises(InputError, match=r"other': base \w+ \(here \w+\).*policy\.model"):
        run(trainer, tmp_path / "wrong", 2, here, policy=Policy(other, **KINDS["lora"]))


def test_random_weights_are_drawn_again_and_not_kept(trainer, tmp_path, monkeypatch):
    """Those of four bits could not even be read back."""
    settings = KINDS["qlora"] | {"weights": "random"}
    whole, rows, _ = run(trainer, tmp_path / "whole", 2, policy=Policy(BASE, **settings))
    _, _, half = run(trainer, tmp_path / "half", 1, policy=Policy(BASE, **settings))
    assert all("lora_" in name or "token" in name for name in torch.load(half, weights_only=True)["state_dict"])
    torch.manual_seed(1234)
    resumed, rest, _ = run(trainer, tmp_path / "rest", 2, half, policy=Policy(BASE, **settings))
    assert torch.equal(rows.batches[1].rollouts.completion_ids, rest.batches[0].rollouts.completion_ids)
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    monkeypatch.setattr("nrt_lightning.randomness.run_seed", lambda: 8)
    with pytest.raises(InputError, match=r"base \w+ \(here \w+\).*seed_everything"):
        run(trainer, tmp_path / "wrong", 2, half, policy=Policy(BASE, **settings))


def test_a_live_base_must_be_given_again(trainer, tmp_path):
    def live(scale=1.0):
        model = AutoModelForCausalLM.from_pretrained(BASE)
        model.model.layers[1].mlp.up_proj.weight.data *= scale
        return Policy(model, tokenizer=AutoTokenizer.from_pretrained(BASE), adapter=LoRA(rank=2))

    whole, *_ = run(trainer, tmp_path / "whole", 2, policy=live())
    _, _, half = run(trainer, tmp_path / "half", 1, policy=live())
    resumed, *_ = run(trainer, tmp_path / "rest", 2, half, policy=live())
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    with pytest.raises(InputError, match=r"base \w+ \(here \w+\).*policy\.model"):
        run(trainer, tmp_path / "wrong", 2, half, policy=live(1.01))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"adapter LoRA\(rank=2, .*\(here None\)"),
        ({"adapter": LoRA(rank=4)}, r"adapter LoRA\(rank=2, .*\(here LoRA\(rank=4"),
        (KINDS["qlora"], r"quantization None \(here FourBit\("),
    ],
)
def test_a_checkpoint_of_another_adapter_is_refused(trainer, tmp_path, checkpoint, settings, message):
    with pytest.raises(InputError, match=message + r".*same adapter and quantization"):
        run(trainer, tmp_path / "wrong", 2, checkpoint, policy=Policy(BASE, **settings))


def test_a_full_checkpoint_is_no_adapter(trainer, tmp_path):
    *_, full = run(trainer, tmp_path / "full", 1, policy=Policy(BASE))
    with pytest.raises(InputError, match=r"adapter None \(here LoRA\("):
        run(trainer, tmp_path / "wrong", 2, full, policy=Policy(BASE, **KINDS["lora"]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_kl_to_the_base_is_the_same_by_either_reference(trainer, tmp_path, kind):
    logged = []
    for reference in (FrozenReference(), AdapterDisabledReference()):
        policy = Policy(BASE, adapter=LoRA(rank=2), **{k: v for k, v in KINDS[kind].items() if k != "adapter"})
        both = {"loss": NRTLoss(kl_coef=0.1), "kl_penalty": KLPenalty(coef=0.1)}
        settings = {"policy": policy, "reference": reference} | both
        module, recorder, _ = run(trainer, tmp_path / type(reference).__name__, 3, **settings)
        logged.append((recorder.metrics, weights(module)))
    (frozen, weights_frozen), (disabled, weights_disabled) = logged
    for a, b in zip(frozen, disabled, strict=True):
        assert abs(a["train/loss_kl"] - b["train/loss_kl"]) < 1e-6
        assert abs(a["train/gain"] - b["train/gain"]) < 1e-6
    assert frozen[-1]["train/loss_kl"] > 0
    for name, value in weights_frozen.items():  # the reference's forward leaves the policy's gradients alone
        torch.testing.assert_close(weights_disabled[name], value, atol=1e-4, rtol=1e-3)


def test_the_kl_to_four_bits_begins_at_the_error_of_quantization(trainer, tmp_path):
    settings = {"reference": QuantizedReference(), "loss": NRTLoss(kl_coef=0.1)}
    _, recorder, checkpoint = run(trainer, tmp_path, 1, **settings)
    assert recorder.metrics[0]["train/loss_kl"] > 0
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not [name for name in state if "quant" in name or "absmax" in name]


def test_quantized_full_training_is_refused_before_weights_are_read(trainer, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(InputError, match=r"policy\.quantization.*policy\.adapter"):
        trainer().fit(nrt_module(policy=Policy(BASE, quantization=FourBit())), registers())


def test_a_quantized_policy_may_be_evaluated(trainer):
    module = nrt_module(policy=Policy(BASE, quantization=FourBit()))
    (found,) = trainer().test(module, registers(), verbose=False)
    assert module.policy.quantized
    assert 0 < found["test/confidence"] < 1


@pytest.mark.parametrize("settings", [{}, KINDS["qlora"]])
def test_the_precision_plugin_of_lightning_is_refused(trainer, monkeypatch, settings):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    made = trainer()
    made.strategy._precision_plugin = BitsandbytesPrecision("nf4")  # as an argument it needs a GPU
    with pytest.raises(InputError, match=r"BitsandbytesPrecision.*policy\.quantization"):
        made.fit(nrt_module(policy=Policy(BASE, **settings)), registers())


def test_the_draw_of_an_adapter_is_that_of_the_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    drawn = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        drawn.append(Policy(BASE, adapter=LoRA(rank=2)).load().state_dict())
    assert all(torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    other = Policy(BASE, adapter=LoRA(rank=2)).load().state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in drawn[0].items())
