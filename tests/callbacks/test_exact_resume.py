"""Where a resumed run begins, and saves that wait for the end of a window."""

import copy
import csv
import re
import shutil
from itertools import product

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.loggers import CSVLogger
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import AheadRollout, ConstantSchedule, InputError, NRTLoss, Policy, RegisterPrograms
from nrt_lightning.cli.checkpoints import checkpoints_in, to_resume
from nrt_lightning.losses import CISPO
from nrt_lightning.strategies.position import read_position, settle


class SaveAt(L.Callback):
    """Saves directly after a micro-batch."""

    def __init__(self, path, place):
        self.path, self.place = path, place

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.place:
            trainer.save_checkpoint(self.path)


def fit(trainer, callbacks, ckpt_path=None, module=None, data=None, **settings):
    recorder = Recorder()
    settings = {"enable_checkpointing": True, "max_epochs": 3, "limit_val_batches": 0} | settings
    made = trainer(callbacks=[recorder, *callbacks], **settings)
    module = module or nrt_module(schedule=ConstantSchedule(warmup=0))
    made.fit(module, registers(val=None, **data or {}), ckpt_path=ckpt_path)
    return module, recorder


def test_saves_inside_a_window_wait_for_its_end(trainer, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, save_last=True)
    fit(trainer, [checkpoint], max_steps=16, data={"window": 4})
    steps = [int(path.stem.split("step=")[1]) for path in tmp_path.glob("epoch*.ckpt")]
    assert sorted(steps) == [4, 8, 12, 16], "3, 6, 9 and 12, 15, each at the end of its window of 4"
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["nrt_lightning_position"]["exact"]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_direct_save_inside_a_window_says_so_and_can_be_resumed(trainer, tmp_path, caplog, accumulate):
    path, data = tmp_path / "inside.ckpt", {"window": 4}
    whole, every = fit(trainer, [SaveAt(path, 4 + 1)], data=data, max_steps=16 // accumulate,
                       accumulate_grad_batches=accumulate)  # fmt: skip
    assert "saved inside a rollout window" in caplog.text
    saved = torch.load(path, weights_only=True)
    assert not saved["nrt_lightning_position"]["exact"]
    caplog.clear()
    resumed, rest = fit(trainer, [], path, data=data, max_steps=16 // accumulate, accumulate_grad_batches=accumulate)
    assert "sampled anew" in caplog.text
    begin = 6 if accumulate < 4 else 4  # four accumulated gradients are not in a checkpoint: go back two micro-batches
    assert rest.rows == every.rows[begin:]
    if accumulate == 4:  # no optimizer step lies between
        assert all(torch.equal(weights(whole)[name], value) for name, value in weights(resumed).items())


def test_a_save_at_an_exception_is_no_dead_end(trainer, tmp_path):
    class Stop(L.Callback):
        def on_before_backward(self, trainer, *_):
            if trainer.global_step == 6:
                raise RuntimeError("stopped")

    saves = [OnExceptionCheckpoint(tmp_path), ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1,
                                                              save_on_exception=True)]  # fmt: skip
    with pytest.raises(RuntimeError, match="stopped"):
        fit(trainer, [Stop(), *saves], max_steps=12, data={"window": 4})
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4, "the good checkpoint is not written over"
    _, rest = fit(trainer, [], tmp_path / "on_exception.ckpt", max_steps=12, data={"window": 4})
    assert len(rest.rows) == 12 - 6


def test_a_run_that_ends_inside_a_window_keeps_its_last_steps(trainer, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    fit(trainer, [checkpoint], max_steps=6, data={"window": 4})
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (last["global_step"], last["nrt_lightning_position"]["exact"]) == (6, False)


def test_a_run_of_max_steps_goes_on_with_max_epochs(trainer, tmp_path):
    fit(trainer, [ModelCheckpoint(tmp_path, save_last=True)], max_steps=3)
    _, rest = fit(trainer, [], tmp_path / "last.ckpt", max_steps=-1, max_epochs=1)
    assert len(rest.rows) == 8 - 3


def test_a_correct_resume_is_not_called_unreliable(trainer, tmp_path, recwarn):
    fit(trainer, [SaveAt(tmp_path / "a.ckpt", 2)], max_steps=4)
    fit(trainer, [], tmp_path / "a.ckpt", max_steps=4)
    assert not [w for w in recwarn if "not resumable" in str(w.message)]


def test_a_checkpoint_without_a_position_is_refused(trainer, tmp_path):
    path = tmp_path / "a.ckpt"
    fit(trainer, [SaveAt(path, 2)], max_steps=4)
    saved = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in saved.items() if name != "loops"}, path)
    with pytest.raises(InputError, match=r"ckpt_path.*a\.ckpt.*no position"):
        fit(trainer, [], path, max_steps=4)


@pytest.mark.parametrize("place", [1, 2])
def test_ahead_rollout_goes_on_between_windows_and_inside_one(trainer, tmp_path, caplog, place):
    def made():
        return nrt_module(loss=NRTLoss(surrogate=CISPO()), schedule=ConstantSchedule(warmup=0))

    path, run = tmp_path / "a.ckpt", {"data": {"window": 2}, "max_steps": 6}
    whole, every = fit(trainer, [AheadRollout(progress=False), SaveAt(path, place)], module=made(), **run)
    caplog.clear()
    resumed, rest = fit(trainer, [AheadRollout(progress=False)], path, module=made(), **run)
    assert rest.rows == every.rows[place + 1 :]
    inside = place == 2
    assert ("The window is sampled anew with these weights" in caplog.text) == inside
    if inside:  # traces of now, in place of those of the window before
        assert rest.ratios[0] == pytest.approx(1, abs=1e-4)
        assert every.ratios[place + 1] != pytest.approx(1, abs=1e-4)
    else:
        assert all(torch.equal(weights(whole)[name], value) for name, value in weights(resumed).items())


class Ends(L.Callback):
    """Notes what a run does at its end, and ends it before a validation."""

    def __init__(self, dies=False):
        self.dies, self.done = dies, []

    def on_validation_start(self, trainer, module):
        if self.dies and trainer.global_step == 4:
            raise RuntimeError("killed")

    def on_validation_end(self, trainer, module):
        self.done.append(("validation", trainer.global_step))

    def on_train_epoch_end(self, trainer, module):
        self.done.append(("epoch", trainer.global_step))

    def on_train_end(self, trainer, module):
        self.done.append(("end", trainer.global_step))


@pytest.mark.parametrize("validates", [True, False])
def test_what_a_kill_has_left_undone_after_the_last_step_is_done(trainer, tmp_path, validates):
    settings = {"max_steps": 4, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    settings |= {"val_check_interval": 2 if validates else 8, "enable_checkpointing": True}

    def run(name, ends, ckpt_path=None):
        saves = ModelCheckpoint(tmp_path / name, every_n_train_steps=1, save_last=True)
        made = trainer(callbacks=[ends, saves], max_epochs=-1, **settings)
        module = nrt_module(schedule=ConstantSchedule(warmup=0))
        made.fit(module, registers(), ckpt_path=ckpt_path)
        return module, made

    whole = Ends()
    expected, _ = run("whole", whole)
    if validates:
        with pytest.raises(RuntimeError, match="killed"):
            run("killed", Ends(dies=True))
    rest = Ends()
    found, made = run(
        "killed" if validates else "whole", rest, tmp_path / ("killed" if validates else "whole") / "last.ckpt"
    )
    assert rest.done == whole.done[-len(rest.done) :]
    assert rest.done == ([("validation", 4)] if validates else []) + [("epoch", 4), ("end", 4)]
    assert made.fit_loop.epoch_loop.batch_progress.total.processed == 4
    assert all(torch.equal(weights(expected)[name], value) for name, value in weights(found).items())


class Counters(L.Callback):
    """Notes the saved counters at every hook that saves."""

    def __init__(self):
        self.seen = []

    def note(self, trainer, hook):
        loops = trainer._checkpoint_connector._get_loops_state_dict()["fit_loop"]
        self.seen.append((hook, trainer.fit_loop.epoch_loop.batch_progress.total.processed, copy.deepcopy(loops)))

    def on_train_batch_end(self, trainer, *_):
        self.note(trainer, "batch")

    def on_validation_end(self, trainer, *_):
        self.note(trainer, "validation")

    def on_train_epoch_end(self, trainer, *_):
        self.note(trainer, "epoch")

    def on_before_optimizer_step(self, trainer, *_):
        self.note(trainer, "within")


def test_positions_are_read_from_whatever_hook_has_saved(trainer):
    counters = Counters()
    made = trainer(callbacks=[counters], max_epochs=2, max_steps=-1, limit_val_batches=1)
    made.fit(nrt_module(), registers())
    for (hook, done, loops), known in product(counters.seen, (8, None)):
        at = read_position(loops, 1, known)
        assert (at.done, at.optimizer_steps) == (done, done)
        assert at.validate == (hook == "batch")
        assert at.ended == (hook in ("batch", "validation") and done % 8 == 0)
        assert at.epoch * 8 + at.step == done
        again = copy.deepcopy(loops)
        settle(again, at)
        assert (read_position(again, 1, known).done, again["epoch_loop.batch_progress"]["total"]["ready"]) == (
            done,
            done,
        )


def test_a_resumed_run_replaces_its_own_files_in_a_folder_that_has_moved(trainer, tmp_path):
    def saves(path):
        return [ModelCheckpoint(path, save_last=True, every_n_train_steps=1)]

    fit(trainer, saves(tmp_path / "one"), max_steps=2)
    shutil.move(tmp_path / "one", tmp_path / "other")
    fit(trainer, saves(tmp_path / "other"), tmp_path / "other" / "last.ckpt", max_steps=4)
    assert {path.name for path in (tmp_path / "other").glob("[!.]*")} == {"last.ckpt", "epoch=0-step=4.ckpt"}


def test_the_newest_to_resume_is_exact(trainer, tmp_path, caplog):
    exact = ModelCheckpoint(tmp_path, "exact", every_n_train_steps=4)
    weights_only = ModelCheckpoint(tmp_path, "weights", every_n_train_steps=1, save_weights_only=True)
    inside = SaveAt(tmp_path / "inside.ckpt", 5)
    fit(trainer, [exact, weights_only, inside], max_steps=6, data={"window": 4})
    found = checkpoints_in([tmp_path], None)
    assert found[0].order[0] == 6
    assert [one.path.stem for one in to_resume(found)] == ["exact", "inside"]
    assert "weights.ckpt holds weights alone" in caplog.text
    (tmp_path / "exact.ckpt").unlink()
    assert to_resume(checkpoints_in([tmp_path], None))[0].path.stem == "inside", "rather than nothing"


def rows_of(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    timed = ("seconds", "per_second", "memory")
    return [{k: v for k, v in row.items() if v and not any(t in k for t in timed)} for row in rows]


@pytest.mark.parametrize("flush", [1, 100])
def test_a_csv_logger_keeps_the_metrics_of_before(trainer, tmp_path, flush):
    def logged(folder, steps, ckpt_path=None):
        logger = CSVLogger(tmp_path, folder, version="one", flush_logs_every_n_steps=flush)
        save, data = SaveAt(tmp_path / "a.ckpt", 3), registers()
        made = trainer(callbacks=[save], max_steps=steps, max_epochs=3, logger=logger, log_every_n_steps=1,
                       val_check_interval=2, limit_val_batches=1)  # fmt: skip
        made.fit(nrt_module(schedule=ConstantSchedule(warmup=0)), data, ckpt_path=ckpt_path)
        return rows_of(tmp_path / folder / "one" / "metrics.csv")

    whole = logged("whole", 7)
    assert len(whole) == 7 + 3
    logged("parts", 6)
    assert logged("parts", 7, tmp_path / "a.ckpt") == whole


def test_the_metrics_of_another_run_are_set_aside(trainer, tmp_path):
    for _ in range(2):
        logger = CSVLogger(tmp_path, "run", version="one")
        trainer(max_steps=2, logger=logger, log_every_n_steps=1).fit(nrt_module(), registers(val=None))
    assert len(rows_of(tmp_path / "run" / "one" / "metrics.csv")) == 2
    assert len(rows_of(tmp_path / "run" / "one" / "metrics-1.csv")) == 2


def changed(trainer, path, **settings):
    given = {"schedule": ConstantSchedule(warmup=0)} | settings.pop("module", {})
    return fit(trainer, [], path, module=nrt_module(**given), max_steps=4, **settings)


def test_what_changed_on_resume_is_said(trainer, tmp_path, caplog):
    path = tmp_path / "a.ckpt"
    fit(trainer, [SaveAt(path, 1)], max_steps=2)
    caplog.clear()
    changed(trainer, path)
    assert "ignored" not in caplog.text
    assert "continues with" not in caplog.text
    slower = {"module": {"optimizer": lambda params: torch.optim.AdamW(params, lr=2e-4, betas=(0.5, 0.6))}}
    changed(trainer, path, gradient_clip_val=3.0, **slower)
    assert re.search(r"optimizer\.lr=0\.0002 is ignored.* 0\.001 from", caplog.text)
    assert re.search(r"optimizer\.betas=\[0\.5, 0\.6\] is ignored", caplog.text)
    assert re.search(r"trainer\.gradient_clip_val=None; .* 3\.0", caplog.text)
    caplog.clear()
    changed(trainer, path, accumulate_grad_batches=2)
    assert re.search(r"accumulate_grad_batches=1; .* 2", caplog.text)
    caplog.clear()
    changed(trainer, path, module={"policy": Policy("embedded:registers-base", dtype="bfloat16")})
    assert re.search(r"model\.policy\.dtype=float32; .* bfloat16", caplog.text)
    assert caplog.text.count("continues with") == 1
    caplog.clear()
    changed(trainer, path, data={"train": RegisterPrograms("validation", 24)})
    assert "training rows are not those of the checkpoint" in caplog.text


def test_another_optimizer_cannot_go_on(trainer, tmp_path):
    path = tmp_path / "a.ckpt"
    fit(trainer, [SaveAt(path, 1)], max_steps=2)
    with pytest.raises(InputError, match=r"a\.ckpt.*AdamW.*SGD"):
        changed(trainer, path, module={"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)})
