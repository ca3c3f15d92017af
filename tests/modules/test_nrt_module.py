import itertools
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from short_runs import Recorder, nrt_module, registers, weights
from tiny import ANSWERS, QUESTIONS, make_prompts
from torch.utils.data import DataLoader

from nrt_lightning import (
    ArithmeticMean,
    FrozenReference,
    GeometricMean,
    GroupNormalized,
    InputError,
    LeaveOneOut,
    LogProb,
    NRTLoss,
    NRTModule,
    OnPolicyRollout,
    Policy,
    Prob,
    Sampling,
    WeightedSum,
)
from nrt_lightning.metrics import ReasoningMetrics
from nrt_lightning.rollouts import write_answers


def fit(trainer, module=None, data=None, **settings):
    recorder = Recorder()
    callbacks = [recorder, *settings.pop("callbacks", [])]
    module, trainer = module or nrt_module(), trainer(callbacks=callbacks, **settings)
    trainer.fit(module, data or registers())
    return module, trainer, recorder


def test_nothing_but_module_and_data_is_needed(trainer):
    before = weights_of_base()
    module, run, recorder = fit(trainer)
    assert run.global_step == 4
    assert any(isinstance(c, OnPolicyRollout) for c in run.callbacks)
    after = weights(module)
    assert all(after[name].isfinite().all() for name in after)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(len(b.rollouts) == 12 for b in recorder.batches)


def weights_of_base():
    return weights(type("Module", (), {"policy": Policy("embedded:registers-base").load()}))


def test_a_rollout_callback_of_ones_own_is_kept(trainer):
    own = OnPolicyRollout(progress=False)
    _, run, _ = fit(trainer, callbacks=[own])
    assert [c for c in run.callbacks if isinstance(c, OnPolicyRollout)] == [own]


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", False), ("bf16-true", True)])
def test_gradients_of_the_default_optimizer_are_clipped(trainer, precision, fused):
    """In mixed precision Lightning refuses to clip the gradients of a fused optimizer."""
    made = trainer(max_steps=1, precision=precision, gradient_clip_val=1.0)
    made.fit(nrt_module(optimizer=None), registers())
    assert made.global_step == 1
    assert made.optimizers[0].defaults["fused"] == fused


@pytest.mark.parametrize(
    ("plugin", "fused"), [(Precision(), True), (MixedPrecision("16-mixed", "cpu"), False)], ids=["32-true", "16-mixed"]
)
def test_the_default_optimizer_takes_one_pass_unless_gradients_are_scaled(policy, plugin, fused):
    module = NRTModule(policy)
    module._trainer = SimpleNamespace(precision_plugin=plugin, estimated_stepping_batches=3)
    assert module.configure_optimizers()["optimizer"].defaults["fused"] == fused


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_precisions(trainer, precision):
    module, _, recorder = fit(trainer, precision=precision, gradient_clip_val=1.0, limit_val_batches=1)
    expected = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {p.dtype for p in module.policy.parameters()} == {expected}
    assert all(math.isfinite(m["train/loss"]) for m in recorder.metrics)
    assert all(m["train/ratio_max"] == 1 for m in recorder.metrics)


AGGREGATORS = [LogProb(), Prob(), GeometricMean(), ArithmeticMean(), WeightedSum("inverse_prob")]
ADVANTAGES = [GroupNormalized(), GroupNormalized(baseline="clip"), LeaveOneOut()]
ONCE = [(aggregator, ADVANTAGES[place % 3]) for place, aggregator in enumerate(AGGREGATORS)]


@pytest.mark.parametrize(
    ("aggregator", "advantage"),
    [
        pytest.param(*pair, marks=[] if pair in ONCE else pytest.mark.slow)
        for pair in itertools.product(AGGREGATORS, ADVANTAGES)
    ],
)
def test_every_aggregation_trains_with_every_advantage(trainer, aggregator, advantage):
    _, _, recorder = fit(trainer, nrt_module(aggregator=aggregator, advantage=advantage), max_steps=1)
    metrics = recorder.metrics[0]
    assert math.isfinite(metrics["train/loss"])
    assert math.isfinite(metrics[f"train/reward_{aggregator.name}"])
    assert ("train/gain" in metrics) == (aggregator.needs_baseline or advantage.needs_baseline)


@pytest.mark.parametrize(("window", "accumulate"), [(1, 1), (1, 4), (2, 2), (2, 4), (4, 4)])
def test_ratio_is_exactly_one_on_policy(trainer, window, accumulate):
    steps = {"max_steps": 2, "accumulate_grad_batches": accumulate}
    _, _, recorder = fit(trainer, data=registers(window=window), **steps)
    assert recorder.ratios == [1.0] * (2 * accumulate)
    assert all(b.rollouts.old_scores is None for b in recorder.batches)


def test_ratio_moves_within_a_window_of_several_steps(trainer):
    _, _, recorder = fit(trainer, data=registers(window=4), max_steps=8)
    assert recorder.ratios[0] == pytest.approx(1, abs=1e-5)
    assert recorder.ratios[4] == pytest.approx(1, abs=1e-5)
    assert all(abs(ratio - 1) > 1e-3 for place, ratio in enumerate(recorder.ratios) if place % 4)


def test_window_scoring_and_one_pass_scoring_agree(trainer):
    """Scored before the step or during it: the first micro-batch's loss and gradients are the same."""
    steps = {"max_steps": 1, "limit_train_batches": 2}
    _, _, one_pass = fit(trainer, data=registers(window=1), **steps)
    _, _, scored = fit(trainer, data=registers(window=2, batch_size=3), **steps)
    first = [one_pass.batches[0], scored.batches[0]]
    assert [len(b.rows) for b in first] == [3, 3]
    assert scored.metrics[0]["train/loss"] is not None
    rollouts = scored.batches[0].rollouts
    module = nrt_module()
    module.configure_model()
    scores = module.policy.score(rollouts, baseline=True)
    torch.testing.assert_close(scores.logprobs.detach(), rollouts.old_scores.logprobs)
    torch.testing.assert_close(scores.baseline_logprobs, rollouts.old_scores.baseline_logprobs)


def test_a_window_is_sampled_once_and_handed_out_in_turn(trainer):
    calls = []

    class Counting(type(nrt_module().engine)):
        def generate(self, policy, request, progress=None):
            calls.append(len(request.prompt_ids))
            return super().generate(policy, request, progress)

    _, _, recorder = fit(
        trainer,
        nrt_module(engine=Counting()),
        registers(window=4, batch_size=2),
        accumulate_grad_batches=4,
        max_steps=2,
    )
    assert calls == [8, 8]
    assert len({row for rows in recorder.rows for row in rows}) == 16


@pytest.mark.parametrize(("window", "accumulate"), [(2, 3), (4, 6)])
def test_windows_that_do_not_fit_are_refused(trainer, window, accumulate):
    with pytest.raises(InputError, match=f"window.*{window}.*|accumulate_grad_batches.*{accumulate}"):
        fit(trainer, data=registers(window=window), accumulate_grad_batches=accumulate)


def test_fast_dev_run(trainer):
    _, run, _ = fit(trainer, fast_dev_run=True)
    assert run.global_step == 1


def test_dataloader_of_plain_texts(trainer):
    texts = [{"question": q, "answer": a} for q, a in zip(QUESTIONS * 2, ANSWERS * 2)]
    recorder = Recorder()
    trainer(callbacks=[recorder], max_steps=2).fit(nrt_module(), DataLoader(texts, batch_size=3))
    assert [row.question for row in recorder.batches[0].rows] == QUESTIONS


def test_batches_that_are_no_questions_are_refused(trainer):
    run = trainer()
    with pytest.raises(InputError, match=r"no 'question'.*'text'"):
        run.fit(nrt_module(), DataLoader([{"text": "a"}] * 4, batch_size=2))
    with pytest.raises(InputError, match=r"Tensor.*Prompts"):
        trainer().fit(nrt_module(), DataLoader(torch.arange(4), batch_size=2))


def test_kl_term_is_zero_at_the_reference_and_grows(trainer):
    module = nrt_module(loss=NRTLoss(kl_coef=0.1), reference=FrozenReference())
    _, _, recorder = fit(trainer, module)
    kls = [m["train/loss_kl"] for m in recorder.metrics]
    assert kls[0] == pytest.approx(0, abs=1e-6)
    assert kls[-1] > 1e-6


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match=r"group_size.*1"):
        nrt_module(sampling=Sampling(group_size=1))
    assert NRTModule(
        Policy("embedded:registers-base"),
        sampling=Sampling(group_size=1),
        advantage=GroupNormalized(center=False, scale="none"),
    )


def test_training_without_rollouts_is_refused():
    module = nrt_module()
    with pytest.raises(InputError, match="OnPolicyRollout"):
        module.training_step(object(), 0)


def test_evaluation_equals_doing_it_by_hand(policy):
    module = nrt_module(policy=policy)
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    texts = module.evaluate(prompts).texts
    values = module.metrics.compute()
    sampling = Sampling(max_trace_tokens=12, temperature=0.0)
    right, emitted, confidence, without = [], [], [], []
    for question, answer in zip(QUESTIONS, ANSWERS):
        one = make_prompts(policy, [question], [answer])
        written = write_answers(policy, module.engine, one, sampling, one.answer_ids.shape[1])
        text = next(text for text in texts if text.question == question)
        assert (text.answer, text.trace, text.row.answer) == (answer, written.trace_texts[0], answer)
        assert (text.policy_answer, text.marker_emitted) == (written.answer_texts[0], bool(written.marker_emitted))
        assert text.policy_answer_ended == bool(written.answers.stopped)
        emitted.append(bool(written.marker_emitted))
        right.append(written.answer_texts[0] == answer)
        trace = written.traces.token_ids[0][written.traces.token_mask[0]].tolist()
        trace = trace[:-1] if written.traces.stopped[0] else trace
        confidence.append(answer_prob(policy, one, trace))
        without.append(answer_prob(policy, one, []))
    assert values["exact_match_forced"] == pytest.approx(sum(right) / 3)
    assert values["marker_rate"] == pytest.approx(sum(emitted) / 3)
    assert values["confidence"] == pytest.approx(sum(confidence) / 3, rel=1e-3)
    assert values["confidence_without_trace"] == pytest.approx(sum(without) / 3, rel=1e-3)
    assert values["relative_confidence_gain"] == pytest.approx(sum(confidence) / sum(without) - 1, rel=1e-3)


def answer_prob(policy, one, trace):
    ids = [*one.prompt_ids[0].tolist(), *trace, policy.markup.marker_ids[0], *one.answer_ids[0].tolist()]
    with torch.no_grad():
        logprobs = policy.network(torch.tensor([ids])).logits[0].log_softmax(-1)
    first = len(ids) - one.answer_ids.shape[1]
    return math.exp(sum(float(logprobs[i - 1, ids[i]]) for i in range(first, len(ids))))


def test_validation_and_test_log_the_same_names(trainer):
    module, run, _ = fit(trainer, max_steps=1, check_val_every_n_epoch=None, val_check_interval=1)
    names = {k.removeprefix("val/") for k in run.callback_metrics if k.startswith("val/")}
    checked = {"checked_match", "checked_match_forced"}  # no row here checks pieces of its answer
    assert names == {*ReasoningMetrics.names, "relative_confidence_gain"} - checked
    (tested,) = trainer().test(module, registers(), verbose=False)
    assert {k.removeprefix("test/") for k in tested} == names


def test_predict_is_greedy_or_sampled(trainer):
    data = registers(predict=registers().sources["test"])
    greedy = [trainer().predict(nrt_module(), data) for _ in range(2)]
    assert greedy[0] == greedy[1]
    rows = [row for batch in greedy[0] for row in batch]
    assert len(rows) == 6
    assert set(rows[0]) == {"id", "question", "trace", "answer", "marker_emitted"}
    sampled = trainer().predict(nrt_module(predict_temperature=1.0), data)
    assert sampled != greedy[0]
    assert sampled == trainer().predict(nrt_module(predict_temperature=1.0), data)


def test_logged_names_are_all_there(trainer):
    _, _, recorder = fit(trainer, log_every_n_steps=1)
    expected = {
        "train/loss", "train/reward", "train/gain", "train/advantage_abs", "train/zero_variance_groups",
        "train/loss_trace", "train/loss_marker", "train/loss_answer", "train/ratio_mean", "train/clip_share",
        "train/grad_norm", "train/tokens_per_second", "rollout/tokens_per_second", "rollout/trace_tokens",
        "rollout/trace_entropy", "rollout/unique_traces", "rollout/truncated_share", "rollout/marker_rate",
        "rollout/prompt_tokens", "rollout/answer_tokens", "train/reward_weighted_sum_neg_log_prob",
    }  # fmt: skip
    assert expected <= recorder.metrics[-1].keys()


def test_learning_raises_the_reward():
    """Thirty steps on the embedded task: the policy's confidence in the answers grows well beyond noise."""
    L.seed_everything(0)
    recorder = Recorder()
    module = nrt_module(sampling=Sampling(group_size=8, max_trace_tokens=32))
    trainer = L.Trainer(
        accelerator="cpu", max_steps=30, max_epochs=-1, logger=False, enable_checkpointing=False, gradient_clip_val=1.0,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, callbacks=[recorder],
    )  # fmt: skip
    from nrt_lightning import RegisterPrograms

    trainer.fit(module, registers(train=RegisterPrograms("train", 240), batch_size=8))
    nll = [m["train/answer_nll"] for m in recorder.metrics]
    assert sum(nll[-5:]) < 0.7 * sum(nll[:5])
