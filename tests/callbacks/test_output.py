"""What a run shows with and without a terminal."""

import csv
import logging
import os
import re

import lightning as L
import pytest
from forked import run_forked
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from short_runs import fast, nrt_module, registers
from torchmetrics.text import CharErrorRate

from nrt_lightning import LinearSchedule, Policy, ProgressLines, SFTModule
from nrt_lightning.callbacks import generation_progress, output, progress_lines
from nrt_lightning.callbacks.generation_progress import described


@pytest.fixture
def shown(tmp_path):
    """A trainer with Lightning's default output, for 4 steps with a validation after every second."""

    def make(**settings) -> L.Trainer:
        L.seed_everything(7)
        defaults = {
            "accelerator": "cpu",
            "max_steps": 4,
            "default_root_dir": tmp_path,
            "logger": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 1,
            "val_check_interval": 2,
            "log_every_n_steps": 2,
        }
        return L.Trainer(**defaults | settings)

    return make


def sft_module() -> SFTModule:
    return SFTModule(Policy("embedded:registers-base"), optimizer=fast, schedule=LinearSchedule(0))


def test_the_time_left_ends_with_max_time(shown, capsys):
    shown(max_steps=100_000, max_time={"seconds": 1}, limit_val_batches=0).fit(sft_module(), registers())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert re.search(r", 0:00:0[01] left$", lines[0])


def test_without_a_terminal_there_are_lines(shown, capsys, tmp_path):
    module = nrt_module(metrics=[CharErrorRate()])
    shown(logger=CSVLogger(tmp_path, name="", version="")).fit(module, registers())
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 1 of 4", "step 2 of 4", "step 4 of 4"]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    for line, step in zip(lines[1:], ("1", "3")):  # loggers number steps from 0
        (logged,) = [row for row in rows if row["step"] == step and row.get("train/reward")]
        for title, name in (("reward", "train/reward"), ("gain", "train/gain"), ("marker", "rollout/marker_rate")):
            assert f"{title} {float(logged[name]):.3f}" in line
        assert f"trace tokens {float(logged['rollout/trace_tokens']):.1f}" in line
    (validated,) = [row for row in rows if row["step"] == "1" and row.get("val/exact_match")]
    assert f"exact match {float(validated['val/exact_match']):.3f} (step 2)" in lines[2]
    assert "exact match" not in lines[1]
    assert all(re.search(r"\d+\.\d\d s a step, \d:\d\d:\d\d left$", line) for line in lines)
    checks = [line for line in out.splitlines() if line.startswith("validation at step")]
    assert [line.split(":")[0] for line in checks] == ["validation at step 2", "validation at step 4"]
    assert f"CharErrorRate {float(validated['val/CharErrorRate']):.3f}" in checks[0]
    assert "\r" not in out
    assert "FLOPs" not in out
    assert "it/s" not in out


def test_a_line_counts_optimizer_steps_and_an_sft_run_shows_its_loss(shown, capsys):
    shown(accumulate_grad_batches=2, val_check_interval=4).fit(sft_module(), registers())
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 1 of 4", "step 2 of 4", "step 4 of 4"]
    assert all(re.search(r": loss \d+\.\d{3}, ", line) for line in lines)


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
def test_given_lines_take_the_place_of_the_bar(shown, capsys, monkeypatch, bar):
    monkeypatch.setattr(output, "has_terminal", lambda: True)
    made = shown(callbacks=[ProgressLines(), bar()], max_steps=2)
    made.fit(sft_module(), registers())
    found = capsys.readouterr()
    assert len([line for line in found.out.splitlines() if line.startswith("step 2 of 2")]) == 1
    assert "it/s" not in found.out + found.err


def test_without_a_progress_bar_nothing_is_shown(shown, capsys):
    shown(enable_progress_bar=False, enable_model_summary=False, max_steps=1).fit(sft_module(), registers())
    assert capsys.readouterr().out == ""


def test_a_bar_with_settings_is_kept(shown, monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr(output, "has_terminal", lambda terminal=terminal: terminal)
        bar = TQDMProgressBar(refresh_rate=50)
        made = shown(callbacks=[bar], max_steps=1)
        made.fit(sft_module(), registers())
        assert made.progress_bar_callback is bar
        assert not bar.is_disabled
        assert not any(isinstance(c, ProgressLines) for c in made.callbacks)


def test_sampling_is_shown_on_the_same_line(monkeypatch):
    monkeypatch.setattr(generation_progress, "DELAY", 0.0)
    from tqdm import tqdm

    with tqdm(desc="Epoch 0", file=open(os.devnull, "w")) as bar:
        before = bar.desc
        with described(bar) as show:
            show(3, 12, 8)
            assert "3/12 tokens, 8 rows" in bar.desc
        assert bar.desc == before


def test_advertisements_are_dropped_and_the_rest_is_kept():
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    texts = ["Tip: try installing [litlogger](https://x)", "Tip: try [litmodels](https://x)", "GPU available: False"]
    records = [logging.LogRecord(log.name, logging.INFO, "", 0, text, None, None) for text in texts]
    assert [bool(log.filter(record)) for record in records] == [False, False, True]


SCRIPT = """
import fcntl, os, pty, struct, sys, termios
import lightning as L
from short_runs import nrt_module, registers

def run(folder):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    trainer = L.Trainer(accelerator="cpu", max_steps=4, val_check_interval=2, num_sanity_val_steps=0,
                        default_root_dir=folder, enable_checkpointing=False)
    trainer.fit(nrt_module(), registers())

def copy(terminal):  # to the output of this process, until the other one has ended
    try:
        while part := os.read(terminal, 65536):
            os.write(1, part)
    except OSError:
        pass

child, terminal = pty.fork()
if child == 0:
    run(sys.argv[1])
else:
    copy(terminal)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_terminal_shows_one_bar_and_a_table_of_validations(tmp_path, monkeypatch):
    for name, size in (("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, size)
    (script := tmp_path / "run.py").write_text(SCRIPT)
    (out,) = run_forked(script, tmp_path, processes=1)
    assert "4/4" in out
    assert "\x1b[A" not in out, "the cursor never goes up: the bar is one line"
    table = [line.strip() for line in out.splitlines() if " | " in line and "it/s" not in line]
    assert table[0].startswith("step | exact match |")
    assert [line.split(" | ")[0] for line in table[1:]] == ["2", "4"]
    assert "litlogger" not in out
    assert "deprecated" not in out
    assert "FLOPs" not in out
    assert "step 1 of" not in out


def test_a_long_run_has_a_hundred_lines_at_most(shown, capsys, monkeypatch):
    monkeypatch.setattr(progress_lines, "LINES", 3)
    shown(max_steps=7, log_every_n_steps=1, limit_val_batches=0, num_sanity_val_steps=0).fit(sft_module(), registers())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("step ", "training"))]
    assert lines[0] == "training: 7 steps, a line every 5"
    assert [line.split(":")[0] for line in lines[1:]] == ["step 1 of 7", "step 5 of 7", "step 7 of 7"]


def test_a_slow_run_has_a_line_a_minute(shown, capsys, monkeypatch):
    monkeypatch.setattr(progress_lines, "LINES", 1)
    monkeypatch.setattr(progress_lines, "EVERY", 0.0)
    shown(log_every_n_steps=1, limit_val_batches=0, num_sanity_val_steps=0).fit(sft_module(), registers())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == [f"step {step} of 4" for step in (1, 2, 3, 4)]
