"""Signals that end a run."""

import os
import signal
import time

import lightning as L
import pytest
import torch
from faults.killed_runs import in_children
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import nrt_module, registers

from nrt_lightning import InputError, SaveOnSignal


class Sends(L.Callback):
    """Sends a signal in a micro-batch, then takes its time."""

    def __init__(self, place, number, *, again=False, seconds=0.0):
        self.place, self.number, self.again, self.seconds = place, number, again, seconds

    def on_before_backward(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.place:
            os.kill(os.getpid(), self.number)
            if self.again:
                os.kill(os.getpid(), self.number)
            time.sleep(self.seconds)


def ended(tmp_path, trainer, sends, *callbacks, **settings):
    """The exit code of a run in a child, and what it printed."""

    def run():
        made = trainer(callbacks=[sends, *callbacks], max_steps=8, **settings)
        made.fit(nrt_module(), registers(val=None, window=2))

    log = tmp_path / "log.txt"
    return in_children(run, log, processes=1), log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_the_window_is_finished_and_saved(tmp_path, trainer, number):
    saves = ModelCheckpoint(tmp_path / "c", save_last=True)
    code, text = ended(tmp_path, trainer, Sends(2, number), saves, enable_checkpointing=True)
    assert code == 128 + number
    assert f"{number.name}: {tmp_path}/c/last.ckpt is saved (step 4)" in text
    assert torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)["nrt_lightning_position"]["exact"]


def test_without_save_last_there_is_a_file_of_its_own(tmp_path, trainer):
    saves = ModelCheckpoint(tmp_path / "c")
    code, _ = ended(tmp_path, trainer, Sends(2, signal.SIGTERM), saves, enable_checkpointing=True)
    assert code == 128 + signal.SIGTERM
    assert torch.load(tmp_path / "c" / "interrupted.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize(
    "sends",
    [
        Sends(4, signal.SIGTERM, seconds=200),
        Sends(4, signal.SIGTERM, again=True),
        Sends(4, signal.SIGINT, again=True),
    ],
)
def test_a_window_that_takes_too_long_is_not_waited_for(tmp_path, trainer, sends):
    saves = ModelCheckpoint(tmp_path / "c", save_last=True, every_n_train_steps=2, save_top_k=0)
    started = time.monotonic()
    code, text = ended(tmp_path, trainer, sends, saves, SaveOnSignal(grace_seconds=0.2), enable_checkpointing=True)
    assert time.monotonic() - started < 200
    assert code == 128 + sends.number
    assert f"exiting without saving. The last checkpoint is {tmp_path}/c/last.ckpt" in text


def test_a_run_without_checkpoints_says_so(tmp_path, trainer):
    code, text = ended(tmp_path, trainer, Sends(2, signal.SIGTERM))
    assert code == 128 + signal.SIGTERM
    assert "nothing is saved" in text


def test_handlers_are_given_back(trainer):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    trainer(max_steps=1).fit(nrt_module(), registers(val=None))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_a_negative_time_is_refused():
    with pytest.raises(InputError, match="grace_seconds=-1"):
        SaveOnSignal(-1)


def test_a_worker_that_is_killed_is_named(trainer, caplog):
    class Worse(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    with pytest.raises(RuntimeError, match="worker"):
        trainer(callbacks=[Worse()]).fit(nrt_module(), registers(val=None))
    assert "data.num_workers is 0" in caplog.text
