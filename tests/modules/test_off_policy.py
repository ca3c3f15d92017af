"""Learning from a window more than once, and from another sampler."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import (
    CISPO,
    ClippedRatio,
    ConstantSchedule,
    EMAReference,
    FrozenReference,
    InitialBaseline,
    InputError,
    KeepOverlong,
    KLPenalty,
    MaskOverlong,
    NRTLoss,
    PenalizeOverlong,
    PolicyGradient,
    ReferenceBaseline,
    Sampling,
    TruncatedImportance,
)


def fit(trainer, module=None, data=None, **settings):
    module, recorder = module or nrt_module(), Recorder()
    made = trainer(callbacks=[recorder], **settings)
    made.fit(module, data or registers(val=None))
    return module, recorder


@pytest.mark.parametrize("surrogate", [CISPO(), ClippedRatio()], ids=repr)
def test_a_window_is_learned_from_as_often_as_it_has_epochs(trainer, surrogate):
    data = registers(val=None, window=2, window_epochs=3)
    _, recorder = fit(trainer, nrt_module(loss=NRTLoss(surrogate=surrogate)), data, max_steps=12)
    for start in (0, 6):
        rows, batches = recorder.rows[start : start + 6], recorder.batches[start : start + 6]
        assert rows[:2] == rows[2:4] == rows[4:]
        assert torch.equal(batches[0].rollouts.completion_ids, batches[4].rollouts.completion_ids)
        assert torch.equal(batches[0].rollouts.old_scores.logprobs, batches[4].rollouts.old_scores.logprobs)
        assert recorder.ratios[start] == pytest.approx(1, abs=1e-5), "the first step is on-policy"
        assert all(abs(ratio - 1) > 1e-3 for ratio in recorder.ratios[start + 1 : start + 6])
    assert not {row for rows in recorder.rows[:2] for row in rows} & {row for r in recorder.rows[6:8] for row in r}


def test_on_policy_the_ratio_is_exactly_one_and_surrogates_have_one_gradient(trainer):
    trained = []
    for surrogate in (CISPO(), ClippedRatio(), PolicyGradient()):
        module = nrt_module(loss=NRTLoss(surrogate=surrogate))
        module.optimizer = lambda params: torch.optim.SGD(params, lr=0.1)
        _, recorder = fit(trainer, module, max_steps=2)
        assert recorder.ratios == [1.0, 1.0]
        trained.append(weights(module))
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value)
        torch.testing.assert_close(trained[2][name], value)


def run(trainer, tmp_path, name, max_steps, ckpt_path=None, every=4, **settings):
    recorder = Recorder()
    checkpoint = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=every, save_top_k=0)
    module = nrt_module(schedule=ConstantSchedule(warmup=0), **settings)
    made = trainer(callbacks=[recorder, checkpoint], max_steps=max_steps, enable_checkpointing=True, max_epochs=9)
    made.fit(module, registers(val=None, window=2, window_epochs=2), ckpt_path=ckpt_path)
    return module, recorder, str(tmp_path / name / "last.ckpt")


def test_epochs_of_windows_and_the_ema_reference_resume_exactly(trainer, tmp_path):
    def settings():  # a reference keeps its weights, so each run needs its own
        loss = NRTLoss(kl_coef=0.5)
        return {"loss": loss, "reference": EMAReference(update_rate=0.5, every_n_steps=3)}

    whole, every, _ = run(trainer, tmp_path, "whole", 8, **settings())
    half, _, checkpoint = run(trainer, tmp_path, "half", 4, **settings())
    resumed, rest, _ = run(trainer, tmp_path, "rest", 8, checkpoint, **settings())
    assert rest.rows == every.rows[4:]
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    pairs = zip(whole.method.reference.frozen[0].parameters(), resumed.method.reference.frozen[0].parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(m["train/kl"] > 0 for m in rest.metrics)
    assert not any("frozen" in name or "reference" in name for name in resumed.state_dict())
    start = dict(nrt_module().policy.load().named_parameters())
    moved = [not torch.equal(p, start[n]) for n, p in half.method.reference.frozen[0].named_parameters()]
    assert any(moved), "the reference moved before the checkpoint, at step 3"


def test_a_run_that_begins_in_a_later_epoch_of_a_window_samples_it_anew(trainer, tmp_path, caplog):
    _, half, checkpoint = run(trainer, tmp_path, "half", 2, every=2)
    _, rest, _ = run(trainer, tmp_path, "rest", 4, checkpoint)
    assert "sampled anew" in caplog.text
    assert rest.rows == half.rows, "the second pass over the window"


@pytest.mark.parametrize(("window", "epochs", "accumulate"), [(2, 2, 3), (3, 2, 2)])
def test_steps_that_would_mix_windows_are_refused(trainer, window, epochs, accumulate):
    with pytest.raises(InputError, match="accumulate_grad_batches"):
        fit(trainer, None, registers(window=window, window_epochs=epochs), accumulate_grad_batches=accumulate)


def test_the_in_process_sampler_is_the_trainers_old_policy(trainer):
    """Nothing to correct: weights are 1 to rounding, and so training is what it is without a correction."""
    plain, _ = fit(trainer, nrt_module(), max_steps=2)
    module = nrt_module(loss=NRTLoss(sampler_correction=TruncatedImportance()))
    _, recorder = fit(trainer, module, max_steps=2)
    assert recorder.metrics[0]["train/sampler_ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert recorder.metrics[0]["train/sampler_ratio_max"] == pytest.approx(1, abs=1e-3)
    assert recorder.metrics[0]["train/sampler_capped_share"] == 0
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(module)[name], value, atol=1e-4, rtol=1e-2)


def test_a_cut_distribution_is_corrected_up_to_the_cap(trainer):
    sampling = Sampling(group_size=4, max_trace_tokens=12, temperature=1.7, top_k=8)
    loss = NRTLoss(sampler_correction=TruncatedImportance(cap=0.8))
    _, recorder = fit(trainer, nrt_module(loss=loss, sampling=sampling), max_steps=1)
    metrics, rollouts = recorder.metrics[0], recorder.batches[0].rollouts
    assert metrics["train/ratio_max"] == 1.0, "of the policy to the old policy"
    assert 0 < metrics["train/sampler_capped_share"] < 1
    fresh = nrt_module()
    fresh.configure_model()
    sampled = rollouts.segments.trace_mask
    sampled = sampled | (rollouts.segments.marker_mask & rollouts.segments.marker_emitted[:, None])
    assert rollouts.temperature == 1.7
    ratio = (fresh.policy.score(rollouts).logprobs - rollouts.sampling_logprobs).exp()[sampled]
    assert metrics["train/sampler_ratio_mean"] == pytest.approx(float(ratio.detach().mean()), rel=1e-4)
    assert metrics["train/sampler_capped_share"] == pytest.approx(float((ratio > 0.8).float().mean()))


def test_greedy_traces_cannot_be_corrected():
    with pytest.raises(InputError, match=r"sampler_correction.*sampling\.temperature is 0"):
        nrt_module(loss=NRTLoss(sampler_correction=TruncatedImportance()), sampling=Sampling(temperature=0.0))


def test_masked_traces_have_no_loss_and_penalized_ones_a_lower_reward(trainer):
    found = {}
    for overlong in (KeepOverlong(), MaskOverlong(), PenalizeOverlong(0.25)):
        module = nrt_module(sampling=Sampling(group_size=8, max_trace_tokens=14), overlong=overlong)
        _, recorder = fit(trainer, module, max_steps=1)
        found[type(overlong)] = recorder.metrics[0]
    rollouts, kept = recorder.batches[0].rollouts, found[KeepOverlong]
    share = float(rollouts.truncated.float().mean())
    assert 0 < share < 1, "or this test shows nothing"
    assert kept["rollout/truncated_share"] == pytest.approx(share)
    fresh = nrt_module()
    fresh.configure_model()
    logprobs = fresh.policy.score(rollouts).logprobs.detach()
    answer = -(logprobs * rollouts.segments.answer_mask).sum(1)  # [N]
    of_all = float(answer.sum()) / len(rollouts) / 512
    of_whole = float(answer[~rollouts.truncated].sum()) / len(rollouts) / 512
    assert kept["train/loss_answer"] == pytest.approx(of_all, rel=1e-4)
    assert found[MaskOverlong]["train/loss_answer"] == pytest.approx(of_whole, rel=1e-4)
    assert found[MaskOverlong]["train/reward"] == kept["train/reward"]
    assert found[PenalizeOverlong]["train/reward"] == pytest.approx(kept["train/reward"] - 0.25 * share, abs=1e-5)


def test_kl_in_the_reward(trainer):
    module = nrt_module(kl_penalty=KLPenalty(0.1), reference=FrozenReference())
    _, recorder = fit(trainer, module, max_steps=3)
    assert recorder.metrics[0]["train/kl"] == pytest.approx(0, abs=1e-6)
    batch = recorder.batches[2]
    fresh = nrt_module(reference=FrozenReference(), kl_penalty=KLPenalty(0.1))
    fresh.configure_model()
    rollouts = batch.rollouts
    fresh.policy.load_state_dict(module.policy.state_dict())
    scores = fresh.method.score(batch)
    value = fresh.method.compute_rewards(batch, scores).value
    fresh.method.kl_penalty = None
    plain = fresh.method.compute_rewards(batch, scores).value
    sampled = rollouts.segments.trace_mask
    sampled = sampled | (rollouts.segments.marker_mask & rollouts.segments.marker_emitted[:, None])
    kl = ((scores.logprobs - scores.ref_logprobs) * sampled).sum(1)
    torch.testing.assert_close(value, plain - 0.1 * kl.detach())
    with pytest.raises(InputError, match=r"kl_penalty.*reference"):
        nrt_module(kl_penalty=KLPenalty())


@pytest.mark.parametrize(
    ("scorer", "window"),
    [
        (InitialBaseline, 1),
        (ReferenceBaseline, 2),
        pytest.param(InitialBaseline, 2, marks=pytest.mark.slow),
        pytest.param(ReferenceBaseline, 1, marks=pytest.mark.slow),
    ],
)
def test_the_baseline_may_be_that_of_the_policy_before_training(trainer, tmp_path, scorer, window):
    data = registers(val=None, window=window)
    settings = {"reference": FrozenReference()} if scorer is ReferenceBaseline else {}
    module = nrt_module(baseline_scorer=scorer(), **settings)
    _, recorder = fit(trainer, module, data, max_steps=4)
    last, first = recorder.batches[-1].rollouts, nrt_module()
    first.configure_model()
    expected = first.policy.score(last, baseline=True).baseline_logprobs
    found = module.method.baseline_scorer.logprobs(last)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    _, again = fit(trainer, nrt_module(baseline_scorer=scorer(), **settings), data, max_steps=4)
    assert again.metrics[-1]["train/gain"] == recorder.metrics[-1]["train/gain"], "from disk as computed"
    assert bool(list(tmp_path.rglob("baselines/*/*.jsonl"))) == (scorer is InitialBaseline)


def test_reference_baseline_without_a_reference_is_refused_before_weights_are_read():
    with pytest.raises(InputError, match=r"baseline_scorer.*ReferenceBaseline.*FrozenReference"):
        nrt_module(baseline_scorer=ReferenceBaseline())
