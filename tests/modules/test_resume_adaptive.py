"""What adapts to a run continues where it stopped: shares, coefficients, questions that were left over."""

from __future__ import annotations

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import Recorder, nrt_module, registers, weights
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import (
    AdaptiveEntropyBonus,
    AnswerConditioned,
    ConstantSchedule,
    EveryTokens,
    NRTLoss,
    PlainTemplate,
    Sampling,
    ShareByReward,
    StepGains,
    ZeroVarianceFilter,
)
from nrt_lightning.callbacks.ahead_state import restore_state, to_state
from nrt_lightning.training.method import Method
from nrt_lightning.training.sampling import measure_signals, sample_window, score_window


def adaptive() -> dict:
    share = ShareByReward(start=0.8, low=0.0, high=3.0, momentum=0.5)
    return {
        "schedule": ConstantSchedule(warmup=0),
        "answer_conditioned": AnswerConditioned(share=share, template="{answer}<{question}"),
        "step_credit": StepGains(EveryTokens(4)),
        "loss": NRTLoss(entropy_bonus=AdaptiveEntropyBonus(coef=0.01, target=1.5, change=0.01)),
        "filters": [ZeroVarianceFilter()],
        "sampling": Sampling(group_size=4, max_trace_tokens=8, refill_rounds=1, keep_surplus=True),
    }


def run(trainer, tmp_path, name, max_steps, ckpt_path=None):
    recorder = Recorder()
    checkpoint = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
    made = trainer(callbacks=[recorder, checkpoint], max_steps=max_steps, enable_checkpointing=True, max_epochs=10)
    module = nrt_module(**adaptive())
    made.fit(module, registers(val=None), ckpt_path=ckpt_path)
    return module, recorder, str(tmp_path / name / "last.ckpt")


def test_resumed_equals_uninterrupted(trainer, tmp_path):
    whole, every, _ = run(trainer, tmp_path, "whole", 4)
    _, _, checkpoint = run(trainer, tmp_path, "half", 2)
    torch.manual_seed(1234)
    resumed, rest, _ = run(trainer, tmp_path, "rest", 4, checkpoint)
    names = ("train/conditioned_share", "train/entropy_coef")
    assert [[m[name] for name in names] for m in every.metrics[2:]] == [
        [m[name] for name in names] for m in rest.metrics
    ]
    assert every.metrics[2]["train/entropy_coef"] != every.metrics[0]["train/entropy_coef"]
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_window_sampled_ahead_keeps_its_parts(policy):
    settings = AnswerConditioned(template="{answer}<{question}", prompt=PlainTemplate())
    sampling = Sampling(group_size=4, max_trace_tokens=8)
    method = Method(policy, sampling=sampling, answer_conditioned=settings, step_credit=StepGains(EveryTokens(3)))
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    batch = sample_window(method, prompts, seed=5, share=0.5).micro_batches[0]
    measure_signals(method, [batch])
    score_window(method, [batch], steps=True)
    other = make_prompts(policy, QUESTIONS, ANSWERS)
    restore_state(other, to_state(batch))
    for name in ("conditioning", "steps", "old_scores"):
        mine, restored = vars(getattr(batch.rollouts, name)), vars(getattr(other.rollouts, name))
        assert mine.keys() == restored.keys()
        for field, value in mine.items():
            assert value is restored[field] is None or torch.equal(value, restored[field]), (name, field)
