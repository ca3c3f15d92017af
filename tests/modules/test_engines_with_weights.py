"""Training with engines that have their own weights: corrected by default, checked before weights are read."""

from __future__ import annotations

import pytest
import torch
from short_runs import Recorder, nrt_module, registers

from nrt_lightning import (
    InputError,
    NRTLoss,
    Policy,
    RewardCorrectness,
    Sampling,
    TruncatedImportance,
    VLLMColocatedEngine,
    VLLMServerEngine,
)

BASE = "embedded:registers-base"
SAMPLING = Sampling(group_size=4, max_trace_tokens=12)


def test_every_window_is_sampled_from_the_weights_of_its_start_and_corrected_for(fake, url, quiet_trainer):
    recorder = Recorder()
    module = nrt_module(engine=VLLMServerEngine([url]))
    quiet_trainer(max_steps=3, callbacks=[recorder]).fit(module, registers())
    assert fake.orders.count("/collective_rpc") == 3
    assert [batch.rollouts.weights_version for batch in recorder.batches] == [0, 1, 2]
    for metrics in recorder.metrics:  # one model in two places
        assert metrics["train/sampler_difference_max"] < 1e-4
        assert metrics["train/sampler_ratio_mean"] == pytest.approx(1, abs=1e-4)


def test_validation_and_callbacks_ask_the_same_engine(fake, url, quiet_trainer):
    module = nrt_module(engine=VLLMServerEngine([url]))
    trainer = quiet_trainer(
        max_steps=2, limit_val_batches=1, val_check_interval=2, callbacks=[RewardCorrectness(rows=3)]
    )
    trainer.fit(module, registers())
    assert "val/exact_match" in trainer.callback_metrics
    assert fake.orders.count("/collective_rpc") == 3  # two windows and what came of the second


def test_a_server_that_is_not_there_is_reported_before_weights_are_read(quiet_trainer):
    policy = Policy(BASE)
    module = nrt_module(policy=policy, engine=VLLMServerEngine(["http://127.0.0.1:9"]))
    with pytest.raises(InputError, match=r"engine\.urls http://127\.0\.0\.1:9"):
        quiet_trainer().fit(module, registers())
    assert policy.model is None


def test_the_engines_correction_is_the_losss_unless_it_has_its_own():
    def correction(**settings):
        return nrt_module(
            engine=VLLMServerEngine(sampler_correction=settings.pop("engine", None)), **settings
        ).method.loss

    own = TruncatedImportance(cap=3.0)
    assert nrt_module(engine=VLLMServerEngine()).method.loss.sampler_correction == TruncatedImportance()
    assert correction().sampler_correction is None
    assert correction(engine=own).sampler_correction == own
    assert (
        correction(engine=own, loss=NRTLoss(sampler_correction=TruncatedImportance(1.5))).sampler_correction.cap == 1.5
    )
    assert nrt_module().method.loss.sampler_correction is None


@pytest.mark.parametrize("settings", [{"sampling": Sampling(temperature=0.0)}, {"train_response": True}])
def test_where_nothing_can_be_corrected_the_engine_says_so(settings):
    with pytest.raises(InputError, match="that of the engine too"):
        nrt_module(engine=VLLMServerEngine(), **settings)


def test_a_method_with_such_an_engine_needs_a_loss_that_corrects(fake, url, quiet_trainer):
    module = nrt_module(sampling=SAMPLING)
    module.method.engine = VLLMServerEngine([url])
    with pytest.raises(InputError, match=r"VLLMServerEngine.*loss\.sampler_correction"):
        quiet_trainer().fit(module, registers())
    module.method.loss = NRTLoss(sampler_correction=TruncatedImportance())
    quiet_trainer(max_steps=1).fit(module, registers())
    assert fake.orders.count("/collective_rpc") == 1


def test_the_difference_of_the_samplers_logprobs_is_that_of_the_sampled_tokens():
    old, sampler = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.9, 0.0]])
    found = TruncatedImportance().metrics(old, sampler, torch.tensor([[True, True, False]]))
    assert found["sampler_difference_mean"] == pytest.approx((0.5 + 0.1) / 2)
    assert found["sampler_difference_max"] == pytest.approx(0.5)


def test_an_engine_in_the_same_process_needs_vllm_and_one_process(monkeypatch):
    engine, policy = VLLMColocatedEngine(max_model_len=64), Policy(BASE)
    monkeypatch.setattr("nrt_lightning.rollouts.vllm.colocated_engine.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"VLLMColocatedEngine.*nrt-lightning\[vllm\]"):
        engine.check(policy)
    monkeypatch.setattr("nrt_lightning.rollouts.vllm.colocated_engine.find_spec", lambda name: name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"VLLMColocatedEngine.*VLLMServerEngine"):
        engine.check(policy)


def test_a_policy_is_evaluated_by_such_an_engine_without_training(fake, url, quiet_trainer):
    trainer = quiet_trainer(limit_val_batches=1)
    trainer.validate(nrt_module(engine=VLLMServerEngine([url])), registers(), verbose=False)
    assert "val/exact_match" in trainer.callback_metrics
    assert fake.orders.count("/collective_rpc") == 1  # the weights do not change
