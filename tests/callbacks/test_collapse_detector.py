"""Policies that collapse for real, and one that has solved its task."""

import math
from pathlib import Path

import lightning as L
import pytest
import torch
from short_runs import nrt_module, registers, weights
from taught import taught_policy

from nrt_lightning import (
    CollapseDetector,
    ConstantSchedule,
    InputError,
    LinearSchedule,
    LowerLearningRate,
    OnPolicyRollout,
    RegisterPrograms,
    RestoreCheckpoint,
    Sampling,
    SFTModule,
    StopTraining,
)
from nrt_lightning.callbacks.collapse.signs import CollapseSign


class Steps(L.Callback):
    """The learning rate, the detector's figures and the weights after every step."""

    def __init__(self):
        self.rates, self.figures, self.weights = [], [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.figures.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("collapse/")})
        self.weights.append(weights(module))


class SeenAt(CollapseSign):
    """A sign at one step."""

    def __init__(self, step):
        self.step = step

    def __call__(self, now, past):
        return "seen" if now.step == self.step else None


def too_fast(params):
    """A learning rate at which the policy forgets everything in ten steps."""
    return torch.optim.AdamW(params, lr=3e-2)


def run(trainer, detector, steps=12, **settings):
    recorder = Steps()
    made = trainer(callbacks=[detector, recorder], max_steps=steps)
    defaults = {"sampling": Sampling(group_size=4, max_trace_tokens=24, suppress_eos=True), "optimizer": too_fast}
    module = nrt_module(**defaults | settings)
    made.fit(module, registers(train=RegisterPrograms("train", 8 * steps), batch_size=8))
    return made, module, recorder


def test_a_collapse_is_seen_and_training_stops(quiet_trainer, caplog):
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[StopTraining()])
    made, _, recorder = run(quiet_trainer, detector, steps=40)
    assert made.global_step < 40
    assert recorder.figures[-1]["collapse/alarm"] == 1
    (warning,) = [record.message for record in caplog.records if "collapse at step" in record.message]
    assert "stopped training" in warning
    assert f"step {made.global_step}:" in warning


def test_without_actions_it_warns_and_goes_on(quiet_trainer, caplog):
    made, _, _ = run(quiet_trainer, CollapseDetector(every_n_steps=1, patience=1, signs=[SeenAt(1)]), steps=2)
    assert made.global_step == 2
    assert "collapse at step" in caplog.text


def test_the_learning_rate_falls_and_follows_its_schedule_from_there(quiet_trainer):
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[LowerLearningRate(0.1)])
    _, _, recorder = run(quiet_trainer, detector)
    alarms = [step for step, figures in enumerate(recorder.figures) if figures.get("collapse/alarm")]
    expected, factor = [], 1.0
    for step in range(12):
        if step in alarms and step % 2:  # logged values stay until the next measurement, two steps later
            factor *= 0.1
        expected.append(3e-2 * (1 - (step + 1) / 12) * factor)
    assert alarms
    assert recorder.rates == pytest.approx(expected)


def test_weights_go_back_to_the_last_healthy_measurement(quiet_trainer, tmp_path):
    """A rising learning rate ruins a policy that has solved its task; the checkpoint restores it."""
    restore = RestoreCheckpoint(str(tmp_path))
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[LowerLearningRate(1e-6), restore])
    rising = {"schedule": LinearSchedule(warmup=10), "policy": taught_policy()}
    made, _, recorder = run(quiet_trainer, detector, **rising)
    alarm = next(step for step, figures in enumerate(recorder.figures, 1) if figures.get("collapse/alarm"))
    healthy = torch.load(restore.path(made), weights_only=True)["global_step"]
    after = [same(recorder.weights[alarm - 1], recorder.weights[step - 1]) for step in range(1, alarm)]
    assert after.index(True) + 1 < alarm, "the weights at the alarm are those of an earlier step"
    gains = [vitals.gain for vitals in detector.past if vitals.step in (alarm, alarm + 2)]
    assert gains[0] < 0.5 * gains[1], "and the gain is back at the next measurement"
    assert healthy >= after.index(True) + 1


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_solved_task_raises_no_alarm(quiet_trainer):
    """Traces are short and nearly certain, and as they should be: they depend on the prompt and are worth much."""
    detector = CollapseDetector(every_n_steps=1, patience=1, actions=[StopTraining()])
    gentle = {"optimizer": lambda params: torch.optim.AdamW(params, lr=1e-4)}
    made, _, recorder = run(quiet_trainer, detector, steps=3, policy=taught_policy(), **gentle)
    assert made.global_step == 3
    last = recorder.figures[-1]
    assert all(figures["collapse/signs"] == 0 for figures in recorder.figures)
    assert last["collapse/trace_entropy"] < 0.1
    assert last["collapse/dependence"] > 0.8
    assert last["collapse/gain"] > 1


def test_template_collapse_is_seen_at_high_entropy(quiet_trainer, caplog):
    """Traces of every kind that have nothing to do with their question: all but the dependence looks healthy."""
    still = {"optimizer": lambda params: torch.optim.AdamW(params, lr=1e-6)}
    detector = CollapseDetector(every_n_steps=1, patience=2)
    _, _, recorder = run(quiet_trainer, detector, steps=2, policy=taught_policy(others=True), **still)
    last = recorder.figures[-1]
    assert last["collapse/trace_entropy"] > 0.3
    assert last["collapse/distinct"] > 0.9
    assert f"prompts: {last['collapse/dependence']:.2f}, below 0.1" in caplog.text


def test_learning_from_the_base_raises_no_alarm(quiet_trainer):
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[StopTraining()])
    made, _, recorder = run(
        quiet_trainer, detector, steps=8, optimizer=lambda params: torch.optim.AdamW(params, lr=4e-4)
    )
    assert made.global_step == 8
    assert all(math.isfinite(value) for value in recorder.figures[-1].values())


def test_measurements_happen_at_the_ends_of_windows_and_of_accumulated_steps(quiet_trainer):
    measured = []

    class Spy(CollapseDetector):
        def measure(self, trainer, module, batch):
            measured.append(trainer.fit_loop.epoch_loop.batch_idx)
            return super().measure(trainer, module, batch)

    made = quiet_trainer(callbacks=[Spy(every_n_steps=1)], max_steps=4, accumulate_grad_batches=2)
    made.fit(nrt_module(), registers(window=4, batch_size=1))
    assert measured == [3, 7]
    measured.clear()
    made = quiet_trainer(callbacks=[Spy(every_n_steps=1)], max_steps=8)
    made.fit(nrt_module(), registers(window=2, window_epochs=2, batch_size=1))
    assert measured == [3, 7], "not between two passes over a window"


def test_a_resumed_run_remembers_what_was_seen(quiet_trainer, tmp_path):
    detector = CollapseDetector(every_n_steps=1, patience=9)
    made = quiet_trainer(callbacks=[detector], max_steps=3)
    made.fit(nrt_module(schedule=LinearSchedule(warmup=0)), registers())
    made.save_checkpoint(tmp_path / "three.ckpt")
    again = CollapseDetector(every_n_steps=1, patience=9)
    quiet_trainer(callbacks=[again], max_steps=4).fit(
        nrt_module(), registers(), ckpt_path=tmp_path / "three.ckpt", weights_only=True
    )
    assert again.past[:3] == detector.past
    assert [vitals.step for vitals in again.past] == [1, 2, 3, 4]
    again.load_state_dict(detector.state_dict() | {"alarms": [2]})
    assert again.alarms == [2]


def test_a_resumed_run_measures_and_restores_as_the_uninterrupted_one(quiet_trainer, tmp_path):
    """`prompts` is more than a micro-batch, so the detector must remember some of before."""

    class SaveAt(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "five.ckpt")

    def fit(steps, folder, ckpt_path=None):
        restore = RestoreCheckpoint("kept", every_n_measurements=2, keep=0.0)
        detector = CollapseDetector(every_n_steps=1, patience=1, prompts=6, signs=[SeenAt(7)], actions=[restore])
        made = quiet_trainer(callbacks=[detector, SaveAt()], max_steps=steps, default_root_dir=tmp_path / folder)
        module = nrt_module(schedule=ConstantSchedule(warmup=0))
        made.fit(module, registers(batch_size=2), ckpt_path=ckpt_path, weights_only=True)
        return detector, weights(module), {path.name for path in (tmp_path / folder / "kept").iterdir()}

    whole, expected, _ = fit(9, "run")
    resumed, got, files = fit(9, "run", tmp_path / "five.ckpt")
    assert resumed.past == whole.past
    assert same(expected, got)
    assert len(files) <= 3


def test_a_healthy_checkpoint_that_is_gone_is_said(quiet_trainer, tmp_path, caplog):
    restore = RestoreCheckpoint()
    restore.load_state_dict({"step": 3, "healthy": 1, "files": [3]})
    restore.on_start(quiet_trainer())
    assert "healthy-step=3.ckpt is gone" in caplog.text


def test_a_run_without_traces_is_refused_before_it_begins(quiet_trainer):
    module = SFTModule(nrt_module().policy)
    with pytest.raises(InputError, match=r"CollapseDetector.*SFTModule"):
        quiet_trainer(callbacks=[CollapseDetector()]).fit(module, registers())


@pytest.mark.parametrize("setting", ["every_n_steps", "patience", "prompts"])
def test_numbers_that_are_too_small_are_refused(setting):
    with pytest.raises(InputError, match=f"{setting}=0 "):
        CollapseDetector(**{setting: 0})


def test_settings_of_actions_are_checked():
    with pytest.raises(InputError, match=r"factor=1\.5 "):
        LowerLearningRate(1.5)
    with pytest.raises(InputError, match="every_n_measurements=0 "):
        RestoreCheckpoint(every_n_measurements=0)


def test_a_missing_checkpoint_is_reported(quiet_trainer, caplog, tmp_path):
    (tmp_path / "healthy.ckpt").write_text("of another run")
    detector = CollapseDetector(every_n_steps=1, patience=1, actions=[RestoreCheckpoint(str(tmp_path))])
    still = {"optimizer": lambda params: torch.optim.AdamW(params, lr=1e-6)}
    run(quiet_trainer, detector, steps=2, policy=taught_policy(others=True), **still)
    assert "no checkpoint" in caplog.text
    assert Path(tmp_path / "healthy.ckpt").read_text() == "of another run"


def test_the_gain_of_whole_responses_is_that_of_the_reference_answer(quiet_trainer):
    def gain(**settings):
        detector = CollapseDetector(every_n_steps=1)
        still = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.0)}
        sampling = Sampling(group_size=4, max_trace_tokens=24, max_answer_tokens=8, suppress_eos=True)
        run(quiet_trainer, detector, steps=1, policy=taught_policy(), sampling=sampling, **still, **settings)
        return detector.past[-1].gain

    assert gain(train_response=True) == pytest.approx(gain(), abs=1e-4) != 0


class ForgetAnswers(L.Callback):
    """Replaces all answers that the policy writes by one, or lets none of them end."""

    def __init__(self, how):
        self.how = how

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        written = batch.rollouts.policy_answers
        if trainer.global_step and self.how == "same":
            written.ids, written.mask = torch.full_like(written.ids, 9), torch.ones_like(written.mask)
        elif trainer.global_step:
            written.ended = torch.zeros_like(written.ended)


@pytest.mark.parametrize(("how", "words"), [("same", "the same: variety 0.1"), ("cut", "no longer finished: 0%")])
def test_lost_answers_of_whole_responses_are_seen_where_traces_stay_sound(quiet_trainer, caplog, how, words):
    """The traces are those of a policy that has solved the task."""
    detector = CollapseDetector(every_n_steps=1, patience=2)
    made = quiet_trainer(callbacks=[detector, OnPolicyRollout(), ForgetAnswers(how)], max_steps=3)
    sampling = Sampling(group_size=4, max_trace_tokens=24, max_answer_tokens=8, suppress_eos=True)
    still = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.0)}
    module = nrt_module(policy=taught_policy(), sampling=sampling, train_response=True, **still)
    made.fit(module, registers(train=RegisterPrograms("train", 24), batch_size=8))
    assert detector.past[0].finished_rate > 0.9
    assert detector.past[0].answer_variety > 0.8
    assert detector.alarms == [3]
    assert words in caplog.text
    assert "collapse/finished_rate" in made.callback_metrics


@pytest.mark.slow
def test_the_whole_quickstart_raises_no_alarm(quiet_trainer):
    detector = CollapseDetector(every_n_steps=5, patience=2, actions=[StopTraining()])
    module = nrt_module(
        sampling=Sampling(group_size=8, max_trace_tokens=32, suppress_eos=True),
        optimizer=lambda params: torch.optim.AdamW(params, lr=4e-4, betas=(0.9, 0.95), eps=1e-15),
        schedule=LinearSchedule(warmup=20),
    )
    made = quiet_trainer(callbacks=[detector], max_steps=150)
    made.fit(module, registers(train=RegisterPrograms("train", 2400), batch_size=16))
    assert made.global_step == 150
    assert detector.past[-1].trace_entropy < 0.5 * detector.past[0].trace_entropy
