"""The scalars of a run in `metrics.jsonl`, and the unit of a logger's steps."""

import csv
import json
import math
import shutil
from itertools import pairwise

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from short_runs import fast, nrt_module, registers

from nrt_lightning import (
    ConstantSchedule,
    InputError,
    Policy,
    RegisterPrograms,
    RunHistory,
    SelfAssessment,
    SFTModule,
    StepAxis,
    TraceSamples,
)  # fmt: skip
from nrt_lightning.callbacks.run_lines import RunLines, thinned

VALIDATED = {"limit_val_batches": 1, "check_val_every_n_epoch": None, "val_check_interval": 2}
COUNTS = ("step", "prompts", "rollouts")


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_time(rows: list[dict]) -> list[dict]:
    timed = ("seconds", "tokens_per_second", "peak_memory_mib")
    return [{name: value for name, value in row.items() if not name.endswith(timed)} for row in rows]


def sft_module() -> SFTModule:
    return SFTModule(Policy("embedded:registers-base"), optimizer=fast)


def test_every_logged_value_is_a_line_with_what_has_been_trained(quiet_trainer, tmp_path):
    made = quiet_trainer(logger=TensorBoardLogger(tmp_path, "", "tb"), max_steps=4, log_every_n_steps=1, **VALIDATED)
    made.fit(nrt_module(), registers())
    reward = float(made.callback_metrics["train/reward"])
    made.test(made.lightning_module, registers(), verbose=False)
    rows = lines(tmp_path / "tb" / "metrics.jsonl")
    trained = [row for row in rows if "train/loss" in row]
    assert [[row[name] for name in COUNTS] for row in trained] == [[n, 3 * n, 12 * n] for n in (1, 2, 3, 4)]
    assert [row["step"] for row in rows if "val/exact_match" in row] == [2, 4]
    assert [row["step"] for row in rows if "test/exact_match" in row] == [4]
    assert trained[-1]["train/reward"] == pytest.approx(reward, rel=1e-6)
    assert all(row["seconds"] > 0 for row in rows)
    assert all(row["epoch"] == 0 for row in trained)


def test_settings_and_environment_are_in_one_file(quiet_trainer, tmp_path):
    quiet_trainer(logger=CSVLogger(tmp_path, "", "mine"), max_steps=1).fit(nrt_module(), registers())
    run = json.loads((tmp_path / "mine" / "run.json").read_text())
    assert (run["format"], run["name"], run["module"], run["traces"]) == (1, "mine", "NRTModule", True)
    assert run["settings"]["data.batch_size"] == 3
    assert run["environment"]["torch"] == torch.__version__
    assert run["environment"]["processes"] == 1
    assert (run["steps"], run["ended"]) == (1, {"step": 1})


def test_a_run_that_was_cut_off_has_no_end(quiet_trainer, tmp_path):
    class Cut(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        quiet_trainer(logger=CSVLogger(tmp_path, "", "x"), callbacks=[Cut()]).fit(sft_module(), registers())
    run = json.loads((tmp_path / "x" / "run.json").read_text())
    assert (run["steps"], run["ended"]) == (4, None)


def test_a_rollout_of_sft_is_an_answer(quiet_trainer, tmp_path):
    quiet_trainer(logger=CSVLogger(tmp_path, "", "sft"), max_steps=2, log_every_n_steps=1).fit(
        sft_module(), registers()
    )
    assert [[row[name] for name in COUNTS] for row in lines(tmp_path / "sft" / "metrics.jsonl")] == [
        [1, 3, 3], [2, 6, 6]
    ]  # fmt: skip
    assert json.loads((tmp_path / "sft" / "run.json").read_text())["traces"] is False


@pytest.mark.parametrize("window", [1, 2])
def test_micro_batches_of_windows_and_steps_count_once(quiet_trainer, tmp_path, window):
    made = quiet_trainer(
        logger=CSVLogger(tmp_path, "", "w"), max_steps=2, log_every_n_steps=1, accumulate_grad_batches=2
    )
    made.fit(nrt_module(), registers(window=window))
    assert [[row[name] for name in COUNTS] for row in lines(tmp_path / "w" / "metrics.jsonl")] == [
        [1, 6, 24], [2, 12, 48]
    ]  # fmt: skip


def test_nothing_is_written_without_a_logger_or_under_fast_dev_run(quiet_trainer, tmp_path):
    quiet_trainer(max_steps=1).fit(nrt_module(), registers())
    quiet_trainer(logger=CSVLogger(tmp_path, "", "x"), fast_dev_run=True).fit(nrt_module(), registers())
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_the_history_is_a_logger_by_itself(quiet_trainer, tmp_path):
    logger = RunHistory(str(tmp_path / "alone"))
    quiet_trainer(logger=logger, max_steps=2, log_every_n_steps=1).fit(nrt_module(), registers())
    assert [row["step"] for row in lines(tmp_path / "alone" / "metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize("version", ["same", "new"])
def test_a_resumed_run_has_the_lines_of_the_uninterrupted_one(quiet_trainer, tmp_path, version):
    def fit(steps, folder, name, ckpt_path=None):
        checkpoint = ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1, filename="{step}")
        made = quiet_trainer(
            logger=CSVLogger(folder, "", name), max_steps=steps, log_every_n_steps=1, default_root_dir=folder,
            enable_checkpointing=True, callbacks=[checkpoint, StepAxis("rollouts")], **VALIDATED,
        )  # fmt: skip
        made.fit(nrt_module(schedule=ConstantSchedule()), registers(), ckpt_path=ckpt_path)

    fit(6, tmp_path / "whole", "same")
    fit(5, tmp_path / "cut", "same")
    fit(6, tmp_path / "cut", version, ckpt_path=tmp_path / "cut" / "step=3.ckpt")
    whole = lines(tmp_path / "whole" / "same" / "metrics.jsonl")
    assert without_time(lines(tmp_path / "cut" / version / "metrics.jsonl")) == without_time(whole)
    if version == "same":
        tables = [list(csv.DictReader((tmp_path / run / "same" / "metrics.csv").open())) for run in ("whole", "cut")]
        assert [[row["step"], row["train/loss"], row["val/confidence"]] for row in tables[0]] == [
            [row["step"], row["train/loss"], row["val/confidence"]] for row in tables[1]
        ]
        assert {int(row["step"]) for row in tables[0]} == {12 * step for step in range(1, 7)}


def test_what_a_monitor_logs_before_a_step_is_there_once(quiet_trainer, tmp_path):
    def fit(steps, folder, ckpt_path=None):
        saves = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        made = quiet_trainer(
            logger=CSVLogger(folder, "", "x"), max_steps=steps, log_every_n_steps=1, default_root_dir=folder,
            enable_checkpointing=True, callbacks=[saves, LearningRateMonitor()], **VALIDATED,
        )  # fmt: skip
        made.fit(nrt_module(schedule=ConstantSchedule()), registers(), ckpt_path=ckpt_path)
        return without_time(lines(folder / "x" / "metrics.jsonl"))

    whole = fit(4, tmp_path / "whole")
    fit(4, tmp_path / "cut")
    for step in (1, 2, 3):  # after a training step, and before and after a validation
        assert fit(4, tmp_path / "cut", tmp_path / "cut" / f"step={step}.ckpt") == whole


FILES = ("metrics.jsonl", "samples.jsonl", "self_assessment.jsonl")


def logged_run(made, folder, steps, version="same", rows=24, **settings):
    """A run of a folder, and what its files hold."""
    saves = ModelCheckpoint(folder / "c", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    trainer = made(
        logger=CSVLogger(folder, "", version), max_steps=steps, log_every_n_steps=1, default_root_dir=folder,
        enable_checkpointing=True, callbacks=[saves, TraceSamples(1), SelfAssessment(1)], **VALIDATED,
    )  # fmt: skip
    data = registers(train=RegisterPrograms("train", rows))
    trainer.fit(nrt_module(schedule=ConstantSchedule()), data, **settings)
    return [without_time(lines(folder / version / name)) for name in FILES]


@pytest.mark.parametrize(("move", "version"), [(shutil.move, "same"), (shutil.move, "new"), (shutil.copytree, "same")])
def test_a_renamed_or_copied_folder_goes_on_with_its_own_lines(quiet_trainer, tmp_path, move, version):
    whole = logged_run(quiet_trainer, tmp_path / "whole", 6)
    logged_run(quiet_trainer, tmp_path / "a", 4)
    move(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    other = logged_run(quiet_trainer, tmp_path / "a", 6, rows=18)
    assert other != whole
    resumed = logged_run(quiet_trainer, tmp_path / "b", 6, version, ckpt_path=tmp_path / "b" / "c" / "step=3.ckpt")
    assert resumed == whole
    assert not list((tmp_path / "b").rglob("*-1.jsonl"))
    assert [without_time(lines(tmp_path / "a" / "same" / name)) for name in FILES] == other


def test_the_lines_of_a_checkpoint_elsewhere_are_those_of_its_run(quiet_trainer, tmp_path):
    whole = logged_run(quiet_trainer, tmp_path / "a", 6)
    shutil.copy(tmp_path / "a" / "c" / "step=3.ckpt", tmp_path / "kept.ckpt")
    assert logged_run(quiet_trainer, tmp_path / "b", 6, ckpt_path=tmp_path / "kept.ckpt") == whole
    assert logged_run(quiet_trainer, tmp_path / "c", 6, ckpt_path=tmp_path / "a" / "c" / "step=3.ckpt") == whole


def test_the_file_of_an_earlier_run_is_kept(quiet_trainer, tmp_path):
    for _ in range(2):
        quiet_trainer(logger=CSVLogger(tmp_path, "", "x"), max_steps=1, log_every_n_steps=1).fit(
            nrt_module(), registers()
        )
    assert len(lines(tmp_path / "x" / "metrics.jsonl")) == 1
    assert len(lines(tmp_path / "x" / "metrics-1.jsonl")) == 1


def test_the_file_is_bounded_and_stays_even(tmp_path):
    logger = RunHistory(str(tmp_path), max_rows=20)
    for step in range(1, 1001):
        logger.log_metrics({"train/loss": 1.0 / step}, step)
        if step % 10 == 0:
            logger.log_metrics({"val/exact_match": 0.5}, step)
    rows = lines(tmp_path / "metrics.jsonl")
    trained = [row["step"] for row in rows if "train/loss" in row]
    assert len(rows) <= 2 * 20
    assert (trained[0], trained[-1]) == (1, 1000)
    assert max(b - a for a, b in pairwise(trained)) <= 3 * 1000 / 10
    assert sum("val/exact_match" in row for row in rows) >= 10


def test_lines_cut_by_a_kill_are_left_out(tmp_path):
    file = RunLines(tmp_path / "m.jsonl")
    file.add([{"step": 1, "x": math.nan}, {"step": 2}])
    with file.path.open("a") as opened:
        opened.write('{"step": 3, "x')
    assert file.read() == [{"step": 1, "x": None}, {"step": 2}]
    assert file.go_back(lambda line: line["step"] < 2, None) == [{"step": 1, "x": None}]
    file.add([{"step": 2}])
    assert len(file.read()) == 2


def test_thinning_keeps_all_lines_of_a_step():
    assert thinned([{"step": 1, "a": 1}, {"step": 1, "b": 1}, {"step": 2}], 1) == [
        {"step": 1, "a": 1}, {"step": 1, "b": 1}, {"step": 2}
    ]  # fmt: skip


def test_an_unknown_unit_is_refused():
    with pytest.raises(InputError, match=r"StepAxis.unit.*rollout"):
        StepAxis("rollout")
