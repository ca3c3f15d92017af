"""Values that are not finite do not reach the weights."""

import json
import math

import lightning as L
import pytest
import torch
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import ConstantSchedule, EMADeviationFilter, InputError, NonFiniteGuard, Policy, SFTModule


class Poison(L.Callback):
    """Makes a gradient, or the loss, not finite in some steps."""

    def __init__(self, *steps, value=math.nan):
        self.steps, self.value = steps, value

    def on_after_backward(self, trainer, module):
        if trainer.global_step in self.steps:
            next(module.parameters()).grad.view(-1)[3] = self.value


class Watch(L.Callback):
    """The weights and the optimizer's steps after every step."""

    def __init__(self):
        self.weights, self.states = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.weights.append(weights(module))
        self.states.append([float(state["step"]) for state in trainer.optimizers[0].state.values()])


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("made", [nrt_module, lambda: SFTModule(Policy("embedded:registers-base"))], ids=["nrt", "sft"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_a_step_that_is_not_finite_moves_nothing(trainer, tmp_path, caplog, made, value):
    watch, rows = Watch(), []

    class Rows(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            rows.append([row.id for row in batch.rows])

    made_trainer = trainer(callbacks=[Poison(1, value=value), watch, Rows()], gradient_clip_val=1.0, max_steps=3)
    made_trainer.fit(made(), registers(val=None))
    assert same(watch.weights[0], watch.weights[1])
    assert watch.states[0] == watch.states[1]
    assert not same(watch.weights[1], watch.weights[2])
    assert all(weight.isfinite().all() for weight in watch.weights[2].values())
    (entry,) = map(json.loads, (tmp_path / "skipped_steps.jsonl").read_text().splitlines())
    assert entry == {"step": 1, "not_finite": ["gradient"], "rows": rows[1]}
    assert "step 1 is skipped: gradient not finite" in caplog.text
    assert made_trainer.callback_metrics["train/skipped_steps"] == 1


def test_a_loss_that_is_not_finite_is_named(trainer, tmp_path):
    class Loss(SFTModule):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.inf if batch_idx == 0 else 1)

    trainer(max_steps=2).fit(Loss(Policy("embedded:registers-base")), registers(val=None))
    entry = json.loads((tmp_path / "skipped_steps.jsonl").read_text())
    assert entry["not_finite"] == ["gradient", "loss"]


def test_several_in_a_row_end_the_run_and_name_their_rows(trainer):
    module, recorder = nrt_module(), Recorder()
    before = None
    with pytest.raises(InputError, match=r"2 optimizer steps in a row.*max_in_a_row=2.*registers-train.*skipped_steps"):
        trainer(callbacks=[Poison(0, 2, 3), NonFiniteGuard(max_in_a_row=2), recorder], max_steps=9).fit(
            module, registers(val=None)
        )
    assert before is None
    assert len(recorder.rows) == 3, "0 and 2 are not in a row, 2 and 3 are"
    assert all(weight.isfinite().all() for weight in weights(module).values())


def test_a_run_without_such_values_is_as_before(trainer):
    runs = []
    for guards in ([], [NonFiniteGuard()]):
        module = nrt_module(schedule=ConstantSchedule(warmup=0))
        trainer(callbacks=guards, max_steps=3).fit(module, registers(val=None))
        runs.append(weights(module))
    assert same(*runs)


def test_values_of_a_group_that_are_not_finite_do_not_poison_the_average():
    ema = EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)
    for values in ([0.2, 0.4], [math.nan, 1.0], [math.inf, 1.0]):
        ema.observe(torch.tensor(values))
    assert ema.average == pytest.approx(0.3)
    assert ema.keep(torch.tensor([0.5, math.nan])).tolist() == [True, False]


def test_max_in_a_row_is_checked():
    with pytest.raises(InputError, match="max_in_a_row=0"):
        NonFiniteGuard(0)
