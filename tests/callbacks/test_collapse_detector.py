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
    InputError,
    LinearSchedule,
    LowerLearningRate,
    RegisterPrograms,
    RestoreCheckpoint,
    Sampling,
    SFTModule,
    StopTraining,
)


class Steps(L.Callback):
    """The learning rate, the detector's figures and the weights after every step."""

    def __init__(self):
        self.rates, self.figures, self.weights = [], [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.figures.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("collapse/")})
        self.weights.append(weights(module))


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
    assert "training stops" in warning
    assert f"step {made.global_step}:" in warning


def test_without_actions_it_warns_and_goes_on(quiet_trainer, caplog):
    made, _, _ = run(quiet_trainer, CollapseDetector(every_n_steps=2, patience=2))
    assert made.global_step == 12
    assert "collapse at step" in caplog.text


def test_the_learning_rate_falls_and_follows_its_schedule_from_there(quiet_trainer):
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[LowerLearningRate(0.1)])
    _, _, recorder = run(quiet_trainer, detector)
    alarms = [step for step, figures in enumerate(recorder.figures) if figures.get("collapse/alarm")]
    expected, factor = [], 1.0
    for step in range(12):
        if step in alarms and step % 2:  # logged values stay until the next look, two steps later
            factor *= 0.1
        expected.append(3e-2 * (1 - (step + 1) / 12) * factor)
    assert alarms
    assert recorder.rates == pytest.approx(expected)


def test_weights_go_back_to_the_last_look_that_was_well(quiet_trainer, tmp_path):
    """A policy that has solved its task is ruined as the learning rate rises, and is given back."""
    restore = RestoreCheckpoint(str(tmp_path))
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[LowerLearningRate(1e-6), restore])
    rising = {"schedule": LinearSchedule(warmup=10), "policy": taught_policy()}
    _, _, recorder = run(quiet_trainer, detector, **rising)
    alarm = next(step for step, figures in enumerate(recorder.figures, 1) if figures.get("collapse/alarm"))
    well = torch.load(tmp_path / "well.ckpt", weights_only=True)["global_step"]
    after = [same(recorder.weights[alarm - 1], recorder.weights[step - 1]) for step in range(1, alarm)]
    assert after.index(True) + 1 < alarm, "the weights at the alarm are those of an earlier step"
    gains = [vitals.gain for vitals in detector.past if vitals.step in (alarm, alarm + 2)]
    assert gains[0] < 0.5 * gains[1], "and worth as much again at the next look"
    assert well >= after.index(True) + 1


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
    assert "traces are a template" in caplog.text


def test_learning_from_the_base_raises_no_alarm(quiet_trainer):
    detector = CollapseDetector(every_n_steps=2, patience=2, actions=[StopTraining()])
    made, _, recorder = run(
        quiet_trainer, detector, steps=8, optimizer=lambda params: torch.optim.AdamW(params, lr=4e-4)
    )
    assert made.global_step == 8
    assert all(math.isfinite(value) for value in recorder.figures[-1].values())


def test_looks_happen_at_the_ends_of_windows_and_of_accumulated_steps(quiet_trainer):
    looks = []

    class Looks(CollapseDetector):
        def look(self, trainer, module, batch):
            looks.append(trainer.fit_loop.epoch_loop.batch_idx)
            return super().look(trainer, module, batch)

    made = quiet_trainer(callbacks=[Looks(every_n_steps=1)], max_steps=4, accumulate_grad_batches=2)
    made.fit(nrt_module(), registers(window=4, batch_size=1))
    assert looks == [3, 7]


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


def test_a_run_without_traces_is_refused_before_it_begins(quiet_trainer):
    module = SFTModule(nrt_module().policy)
    with pytest.raises(InputError, match="SFTModule samples none"):
        quiet_trainer(callbacks=[CollapseDetector()]).fit(module, registers())


@pytest.mark.parametrize("setting", ["every_n_steps", "patience", "prompts"])
def test_numbers_that_are_too_small_are_refused(setting):
    with pytest.raises(InputError, match=f"{setting} is 0"):
        CollapseDetector(**{setting: 0})


def test_settings_of_actions_are_checked():
    with pytest.raises(InputError, match=r"factor is 1\.5"):
        LowerLearningRate(1.5)
    with pytest.raises(InputError, match="every_n_looks is 0"):
        RestoreCheckpoint(every_n_looks=0)


def test_nothing_to_go_back_to_is_said(quiet_trainer, caplog, tmp_path):
    (tmp_path / "well.ckpt").write_text("of another run")
    detector = CollapseDetector(every_n_steps=1, patience=1, actions=[RestoreCheckpoint(str(tmp_path))])
    still = {"optimizer": lambda params: torch.optim.AdamW(params, lr=1e-6)}
    run(quiet_trainer, detector, steps=2, policy=taught_policy(others=True), **still)
    assert "there is no checkpoint of a well policy" in caplog.text
    assert Path(tmp_path / "well.ckpt").read_text() == "of another run"


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
