"""A method in a LightningModule of one's own: `NRTModule` is not needed."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from short_runs import Recorder, fast, nrt_module, registers, weights

from nrt_lightning import (
    AheadRollout,
    BatchNormalized,
    CollapseDetector,
    ConstantSchedule,
    ExactMatch,
    InputError,
    Method,
    OnPolicyRollout,
    Policy,
    RewardCorrectness,
    Sampling,
    WeightedSumOfSignals,
    ZeroVarianceFilter,
)

SAMPLING = Sampling(group_size=4, max_trace_tokens=12)


class MyModule(L.LightningModule):
    """All that a module of one's own needs."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.method = Method(Policy("embedded:registers-base"), **{"sampling": SAMPLING} | settings)
        self.policy = self.method.policy

    def configure_model(self) -> None:
        self.policy.load()

    def training_step(self, batch, batch_idx):
        scores = self.method.score(batch)
        credit = self.method.assign_credit(batch, scores)
        out = self.method.compute_loss(batch, scores, credit)
        self.log("train/ratio_max", out.metrics["ratio_max"])
        return out.loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return fast(self.policy.parameters())


def fit(trainer, module, *callbacks, data=None, **settings):
    recorder = Recorder()
    made = trainer(callbacks=[recorder, *callbacks], **settings)
    made.fit(module, data or registers())
    return recorder


def test_three_calls_train_as_nrt_module_does(quiet_trainer):
    mine, ours = MyModule(), nrt_module(sampling=SAMPLING, schedule=ConstantSchedule(warmup=0))
    assert fit(quiet_trainer, mine, OnPolicyRollout()).rows == fit(quiet_trainer, ours).rows
    assert all(torch.equal(a, b) for a, b in zip(weights(mine).values(), weights(ours).values()))


def test_filters_and_advantages_over_the_batch_work_in_it(quiet_trainer):
    module = MyModule(advantage=BatchNormalized(), filters=[ZeroVarianceFilter()])
    recorder = fit(quiet_trainer, module, OnPolicyRollout(), data=registers(window=2, val=None), max_steps=2)
    assert "train/filtered_zero_variance" in recorder.metrics[0]
    credit = [batch.rollouts.credit for batch in recorder.batches]
    kept = torch.cat([c.advantages[c.loss_rows] for c in credit])
    assert kept.mean() == pytest.approx(0, abs=1e-5)


def test_callbacks_read_the_method(quiet_trainer):
    callbacks = [OnPolicyRollout(), RewardCorrectness(rows=3), CollapseDetector(every_n_steps=1, patience=99)]
    settings = {"limit_val_batches": 1, "val_check_interval": 2, "max_steps": 2}
    module = MyModule()
    fit(quiet_trainer, module, *callbacks, **settings)
    assert {"collapse/gain", "rollout/seconds", "correctness/right"} <= module.trainer.callback_metrics.keys()


def test_windows_are_sampled_ahead_for_it(quiet_trainer):
    recorder = fit(quiet_trainer, MyModule(), AheadRollout(), data=registers(val=None), max_steps=3)
    assert all(batch.rollouts.old_scores is not None for batch in recorder.batches)


def test_a_policy_that_lightning_would_not_find_is_refused(quiet_trainer):
    module = MyModule()
    module.policy = Policy("embedded:registers-base")  # another one
    with pytest.raises(InputError, match=r"MyModule\.method\.policy"):
        fit(quiet_trainer, module, OnPolicyRollout())


def test_a_module_without_a_method_is_refused(quiet_trainer):
    module = MyModule()
    del module.method
    for callback in (OnPolicyRollout(), RewardCorrectness()):
        with pytest.raises(InputError, match=rf"{type(callback).__name__}.*MyModule\.method"):
            fit(quiet_trainer, module, callback)


def test_parts_that_cannot_work_together_are_refused(quiet_trainer):
    with pytest.raises(InputError, match=r"sampling\.group_size is 1"):
        fit(quiet_trainer, MyModule(sampling=Sampling(group_size=1)), OnPolicyRollout())


@pytest.mark.parametrize("train_response", [False, True])
def test_rollouts_hold_the_reference_answer_whatever_is_trained(quiet_trainer, train_response):
    module = MyModule(train_response=train_response, sampling=Sampling(4, 12, max_answer_tokens=4))
    for batch in fit(quiet_trainer, module, OnPolicyRollout()).batches:
        rollouts = batch.rollouts
        answers = rollouts.completion_ids[rollouts.segments.answer_mask]
        assert torch.equal(answers, rollouts.answer_ids[rollouts.group_ids][rollouts.answer_mask[rollouts.group_ids]])
        assert (batch.responses is not None) == train_response
        assert batch.trained is (batch.responses if train_response else rollouts)


def test_signals_replace_the_aggregator_and_its_baseline():
    signals = WeightedSumOfSignals({"match": ExactMatch()})
    method = Method(Policy("embedded:registers-base"), signals=signals)
    assert not method.needs_baseline
    assert not method.needs_answer_logprobs
    assert Method(method.policy).needs_baseline
