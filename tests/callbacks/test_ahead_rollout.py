"""Traces that are sampled while the window before is trained."""

import copy
import threading
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import (
    AheadRollout,
    BatchNormalized,
    ConstantSchedule,
    EMAReference,
    ExactMatch,
    InitialBaseline,
    InputError,
    LoRA,
    NRTLoss,
    OnPolicyRollout,
    Policy,
    PolicyGradient,
    RegisterPrograms,
    RolloutEngine,
    Sampling,
    SelfCertainty,
    TransformersEngine,
    TruncatedImportance,
    VLLMColocatedEngine,
    WeightedSumOfSignals,
    ZeroVarianceFilter,
)
from nrt_lightning.callbacks.ahead_checks import check_ahead
from nrt_lightning.models.policy.snapshot import copy_from, snapshot
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.rollouts import assemble, trace_request


@pytest.fixture
def trainer(quiet_trainer):
    return lambda **settings: quiet_trainer(devices=1, gradient_clip_val=None, **settings)


class Notes(Callback):
    """The policy's weights before each micro-batch, and the threads there are."""

    def __init__(self):
        self.policies, self.modes = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.policies.append(copy.deepcopy(module.policy))
        self.modes.append(module.policy.network.training)


def fit(trainer, module=None, data=None, rollout=None, **settings):
    module, recorder, notes = module or nrt_module(), Recorder(), Notes()
    rollout = rollout or AheadRollout(progress=False)
    made = trainer(callbacks=[rollout, recorder, notes], **settings)
    made.fit(module, data or registers(val=None))
    return module, recorder, notes


def same(one, other):
    return one.shape == other.shape and torch.equal(one, other)


@pytest.mark.parametrize(
    ("window", "epochs", "accumulate"), [(1, 1, 1), pytest.param(2, 1, 2, marks=pytest.mark.slow), (2, 1, 1), (2, 2, 1)]
)
def test_a_window_is_sampled_and_scored_by_the_policy_of_the_window_before(trainer, window, epochs, accumulate):
    data = registers(val=None, window=window, window_epochs=epochs)
    module, recorder, notes = fit(trainer, None, data, max_steps=8, accumulate_grad_batches=accumulate)
    size = window * epochs
    for number in range(len(recorder.batches) // size):
        sampler = notes.policies[max(0, number - 1) * size]
        share = recorder.batches[number * size]
        seed = counter_seed(run_seed(), 0, number * size, 0, "rollout")
        rollouts = share.rollouts
        if window == 1:
            traces = TransformersEngine().generate(sampler, trace_request(sampler, share, module.method.sampling, seed))
            expected = assemble(share, traces, sampler.markup)
            assert same(rollouts.completion_ids, expected.completion_ids)
        with torch.no_grad():
            scores = sampler.eval().score(rollouts, baseline=True)
        torch.testing.assert_close(rollouts.old_scores.logprobs, scores.logprobs)
        torch.testing.assert_close(rollouts.old_scores.baseline_logprobs, scores.baseline_logprobs)
        first = recorder.ratios[number * size]
        assert first == pytest.approx(1, abs=1e-4) if number == 0 else abs(first - 1) > 1e-3, "the ratio is at work"
    assert all(notes.modes)


@pytest.mark.parametrize("settings", [{}, {"needs": "own answers"}], ids=["traces", "own answers"])
def test_a_policy_that_stands_still_writes_what_it_writes_on_policy(trainer, settings):
    """Prompts, seeds and places are those of `OnPolicyRollout`, over epochs of more than a pass and their end."""
    runs = []
    for rollout in (OnPolicyRollout(progress=False), AheadRollout(progress=False)):
        module = nrt_module()
        if settings:
            module = nrt_module(train_response=True, sampling=Sampling(4, 12, max_answer_tokens=4))
        module.optimizer = lambda params: torch.optim.SGD(params, lr=0.0)
        data = registers(train=RegisterPrograms("train", 9), val=None, window=2, passes=2)
        limits = {"max_steps": 3, "accumulate_grad_batches": 2, "limit_train_batches": 4}
        runs.append(fit(trainer, module, data, rollout, max_epochs=9, **limits)[1])
    assert runs[0].rows == runs[1].rows
    assert len(runs[0].rows) == 6
    for plain, ahead in zip(runs[0].batches, runs[1].batches):
        assert same(plain.rollouts.completion_ids, ahead.rollouts.completion_ids)
    names = ["train/reward", "train/loss_trace", "train/loss_answer"]
    for plain, ahead in zip(runs[0].metrics, runs[1].metrics):
        assert [plain[n] for n in names] == pytest.approx([ahead[n] for n in names], abs=1e-5)


class Patient(RolloutEngine):
    """Does not sample a second window before the first has been trained."""

    def __init__(self):
        self.trained, self.threads, self.calls = threading.Event(), [], 0

    def generate(self, policy, request, progress=None):
        self.calls += 1
        self.threads.append(threading.current_thread())
        if self.calls == 2:
            assert self.trained.wait(timeout=120), "nothing was trained meanwhile"
        return TransformersEngine().generate(policy, request, progress)


class SaysWhenTrained(Callback):
    def __init__(self, engine):
        self.engine = engine

    def on_train_batch_end(self, *args):
        self.engine.trained.set()


def test_training_goes_on_while_the_next_window_is_sampled(trainer):
    engine = Patient()
    made = trainer(callbacks=[AheadRollout(), SaysWhenTrained(engine)], max_steps=3)
    made.fit(nrt_module(engine=engine), registers(val=None))
    assert made.global_step == 3
    assert engine.calls == 4
    assert threading.main_thread() not in engine.threads
    assert not any(thread.name.startswith("next window") for thread in threading.enumerate())


class Failing(RolloutEngine):
    def generate(self, policy, request, progress=None):
        raise ConnectionError("lost the server")


def test_an_error_in_the_background_ends_the_run(trainer):
    with pytest.raises(ConnectionError, match="lost the server"):
        fit(trainer, nrt_module(engine=Failing()), rollout=AheadRollout())


class Interrupted(Exception):
    pass


class Stopper(Callback):
    def on_train_batch_end(self, *args):
        raise Interrupted


def test_a_run_that_breaks_off_stops_the_background(trainer):
    rollout = AheadRollout(progress=False)
    with pytest.raises(Interrupted):
        trainer(callbacks=[rollout, Stopper()]).fit(nrt_module(), registers(val=None))
    with pytest.raises(RuntimeError, match="The run has ended"):
        rollout.go_on(1, 2, 3)


def run(trainer, tmp_path, name, max_steps, ckpt_path=None, data=None, accumulate=1, rollout=None, **settings):
    recorder = Recorder()
    checkpoint = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
    made = trainer(
        callbacks=[rollout or AheadRollout(progress=False), recorder, checkpoint],
        max_steps=max_steps,
        max_epochs=10,
        enable_checkpointing=True,
        accumulate_grad_batches=accumulate,
    )
    module = nrt_module(schedule=ConstantSchedule(warmup=0), **settings)
    made.fit(module, registers(**{"val": None} | (data or {})), ckpt_path=ckpt_path)
    return module, recorder, str(tmp_path / name / "last.ckpt")


def resume(trainer, tmp_path, stop, more, settings=dict, **fixed):
    """A run that stops and one that goes on from its checkpoint are the uninterrupted run; what it saw at the end."""
    whole, every, _ = run(trainer, tmp_path, "whole", stop + more, **settings(), **fixed)
    _, first, checkpoint = run(trainer, tmp_path, "half", stop, **settings(), **fixed)
    torch.manual_seed(1234)  # whatever was drawn in between must not matter
    resumed, rest, _ = run(trainer, tmp_path, "rest", stop + more, checkpoint, **settings(), **fixed)
    done = len(first.rows)
    assert rest.rows == every.rows[done:]
    for before, after in zip(every.batches[done:], rest.batches):
        assert same(before.rollouts.completion_ids, after.rollouts.completion_ids)
        assert same(before.trained.old_scores.logprobs, after.trained.old_scores.logprobs)
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    return rest


@pytest.mark.parametrize(
    ("stop", "window", "accumulate"),
    [
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 1, 1), (3, 1, 2), (4, 2, 1), (8, 1, 1))),
        (2, 2, 2),
        (9, 1, 1),
    ],  # 8 micro-batches an epoch: 8 is its end
)
def test_resumed_equals_uninterrupted(trainer, tmp_path, stop, window, accumulate):
    rest = resume(trainer, tmp_path, stop, 3, data={"window": window}, accumulate=accumulate)
    assert abs(rest.ratios[0] - 1) > 1e-3, "its first window is off-policy, as it would have been"


def everything():
    return {
        "loss": NRTLoss(kl_coef=0.5, sampler_correction=TruncatedImportance()),
        "reference": EMAReference(update_rate=0.5, every_n_steps=3),
        "advantage": BatchNormalized(),
        "filters": [ZeroVarianceFilter()],
        "signals": WeightedSumOfSignals({"match": ExactMatch(), "certainty": SelfCertainty()}),
        "sampling": Sampling(4, 12, max_answer_tokens=4, refill_rounds=1),
    }


def responses():
    return {"train_response": True, "sampling": Sampling(4, 12, max_answer_tokens=4)}


def of_the_first_policy():
    return {"baseline_scorer": InitialBaseline(), "policy": Policy("embedded:registers-base", adapter=LoRA(rank=4))}


@pytest.mark.parametrize(
    "settings", [everything, *(pytest.param(part, marks=pytest.mark.slow) for part in (responses, of_the_first_policy))]
)
def test_methods_with_more_parts_resume_exactly_too(trainer, tmp_path, settings):
    resume(trainer, tmp_path, 4, 2, settings, data={"window": 2})


def test_a_checkpoint_holds_the_window_and_no_older_weights(trainer, tmp_path):
    _, _, ahead = run(trainer, tmp_path, "a", 2)
    _, _, plain = run(trainer, tmp_path, "b", 2, rollout=OnPolicyRollout(progress=False))
    more = Path(ahead).stat().st_size - Path(plain).stat().st_size
    _, batches, _ = run(trainer, tmp_path, "c", 3)
    rollouts = batches.batches[2].rollouts
    tokens = rollouts.completion_ids.numel() + rollouts.prompt_ids.numel()
    assert 8 * tokens < more < 40 * tokens + 20_000, "ids, masks and log-probs"


def test_a_run_without_a_window_in_its_checkpoint_or_with_another_group_size_begins_anew(trainer, tmp_path, caplog):
    _, _, plain = run(trainer, tmp_path, "plain", 2, rollout=OnPolicyRollout(progress=False))
    _, rest, ahead = run(trainer, tmp_path, "ahead", 4, plain)
    assert rest.ratios[0] == pytest.approx(1, abs=1e-4)
    assert "cannot be used" not in caplog.text
    _, rest, _ = run(trainer, tmp_path, "rest", 6, ahead, sampling=Sampling(group_size=6, max_trace_tokens=12))
    assert rest.ratios[0] == pytest.approx(1, abs=1e-4)
    assert len(rest.batches[0].rollouts) == 18
    assert "another group size" in caplog.text


class Elsewhere(RolloutEngine):
    """As a server: samples from the weights it was sent, whatever the policy's are now."""

    own_weights = True

    def __init__(self):
        self.sent, self.weights = 0, None

    def send(self, policy):
        assert threading.current_thread() is threading.main_thread()
        self.sent, self.weights = self.sent + 1, copy.deepcopy(policy)

    def generate(self, policy, request, progress=None):
        return TransformersEngine().generate(self.weights, request, progress)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_engine_with_weights_of_its_own_is_corrected_for_them(trainer, accumulate):
    engine = Elsewhere()
    module = nrt_module(engine=engine, loss=NRTLoss(sampler_correction=TruncatedImportance(cap=1.1)))
    rollout, limits = AheadRollout(progress=False), {"max_steps": 8 // accumulate}
    data = registers(val=None, window=2)
    _, recorder, notes = fit(trainer, module, data, rollout, **limits, accumulate_grad_batches=accumulate)
    assert engine.sent == 5, "at the start, and at each of four windows"
    assert rollout.sampler_policy is None
    for step in (2, 4, 6):
        rollouts, metrics = recorder.batches[step].rollouts, recorder.metrics[step]
        with torch.no_grad():
            before, now = (notes.policies[at].eval().score(rollouts).logprobs for at in (step - 2, step))
        sampled = rollouts.segments.trace_mask
        sampled = sampled | (rollouts.segments.marker_mask & rollouts.segments.marker_emitted[:, None])
        torch.testing.assert_close(rollouts.sampling_logprobs[sampled], before[sampled], atol=1e-5, rtol=1e-4)
        ratio = (now - before).exp()[sampled]
        assert metrics["train/sampler_ratio_mean"] == pytest.approx(float(ratio.mean()), rel=1e-4)
        assert metrics["train/sampler_capped_share"] == pytest.approx(float((ratio > 1.1).float().mean()))
        assert recorder.ratios[step] == pytest.approx(1, abs=1e-4)
    assert max(metrics["train/sampler_capped_share"] for metrics in recorder.metrics) > 0


def test_the_snapshot_of_an_adapter_shares_the_base():
    policy = Policy("embedded:registers-base", adapter=LoRA(rank=4)).load()
    double = snapshot(policy)
    for ours, theirs in zip(policy.parameters(), double.parameters(), strict=True):
        assert (ours.data_ptr() == theirs.data_ptr()) == (not ours.requires_grad)
    before = [p.detach().clone() for p in double.parameters()]
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 1
    assert all(torch.equal(a, b) for a, b in zip(before, double.parameters()))
    copy_from(double, policy)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), double.parameters()))


class NoFollowing(L.LightningDataModule):
    def train_dataloader(self):
        return []


@pytest.mark.parametrize(
    ("module", "data", "engine", "strategy", "message"),
    [
        ({}, NoFollowing, None, "auto", "method `next_window`"),
        ({"loss": NRTLoss(surrogate=PolicyGradient())}, None, None, "auto", "PolicyGradient"),
        ({}, None, Elsewhere(), "auto", r"Elsewhere learns .* loss\.sampler_correction is null"),
        ({}, None, None, ModelParallelStrategy(1, 1), "ModelParallelStrategy.*engine with weights of its own"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused(trainer, module, data, engine, strategy, message):
    made = trainer(callbacks=[AheadRollout()])
    made._accelerator_connector.strategy = strategy if strategy != "auto" else made.strategy
    rollout, module = made.callbacks[0], nrt_module(**module | ({"engine": engine} if engine else {}))
    made.datamodule = (data or registers)()
    with pytest.raises(InputError, match=message):
        rollout.setup(made, module, "fit")


def test_a_colocated_engine_cannot_sample_while_its_process_trains(trainer):
    made = trainer()
    made.datamodule = registers()
    with pytest.raises(InputError, match="Use VLLMServerEngine"):
        check_ahead(made, nrt_module(engine=VLLMColocatedEngine(max_model_len=99)).method)
