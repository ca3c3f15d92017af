"""What a run needs, keeps and leaves behind: rows of the test, checkpoints, its configuration, its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from cli.small_runs import CONFIGS, QUICKSTART, Command, small_args
from nrt_lightning import NRTModule
from nrt_lightning.cli.lightning_cli import NRTCLI
from nrt_lightning.cli.main import main, run
from nrt_lightning.errors import InputError

RESULTS = ["--trainer.callbacks=nrt_lightning.ResultsFile", "--trainer.callbacks.path=results.json",
           "--trainer.callbacks.name=mine"]  # fmt: skip
KEPT = ["--trainer.callbacks=BestAndLast"]


@pytest.fixture
def never_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("a step was taken")

    for step in ("training_step", "validation_step", "test_step", "predict_step"):
        monkeypatch.setattr(NRTModule, step, never)


def train_in(folder: Path, *options: str) -> Path:
    """The folder of a small run of `fit`, for tests that begin with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["nrt-lightning"])
        patch.setenv("PL_GLOBAL_SEED", "0")
        run(small_args("fit", folder, *options))
    return folder / "out"


@pytest.fixture(scope="module")
def of_best_and_last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("kept"), *KEPT)


@pytest.fixture(scope="module")
def of_fit_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("plain"))


def files(folder: str | Path = ".") -> set[str]:
    """All files below a folder, relative to it, without those that a checkpoint of the same name has replaced."""
    paths = {path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".before"}
    return {str(path.relative_to(folder)) for path in paths}


def same_weights(cli: NRTCLI, path: str | Path) -> bool:
    saved = torch.load(path, weights_only=True)["state_dict"]
    return all(torch.equal(value, saved[f"policy.model.{name}"])
               for name, value in cli.model.policy.network.state_dict().items())  # fmt: skip


# What a run will need later


def test_missing_test_rows_are_refused_before_the_first_step(nrt: Command, never_stepped: None) -> None:
    with pytest.raises(InputError, match=r"ResultsFile.*data\.test"):
        nrt("fit", *RESULTS, "--data.test=null")


def test_test_rows_that_cannot_be_used_are_refused_before_the_first_step(nrt: Command, never_stepped: None) -> None:
    Path("held_out.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "a"}\n')
    with pytest.raises(InputError, match=r"held_out\.jsonl:2"):
        nrt("fit", *RESULTS, "--data.test=FileSource", "--data.test.path=held_out.jsonl")


def test_a_run_without_results_needs_no_test_rows(nrt: Command) -> None:
    assert nrt("fit", "--data.test=null").trainer.global_step == 2


def questions(count: int, long: int, **answer: object) -> None:
    rows = [{"id": str(i), "question": "a4b*2c+2d+3?dc:" * (9 if i == long else 1)} | answer for i in range(count)]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def predicted(nrt: Command, *options: str) -> list[str]:
    source = ["--data.predict=FileSource", "--data.predict.path=questions.jsonl"]
    nrt("predict", *source, "--predictions.path=predictions.jsonl", *options)
    return [json.loads(line)["id"] for line in Path("predictions.jsonl").read_text().splitlines()]


def test_predict_says_which_rows_it_leaves_out(
    nrt: Command, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    questions(40, long=7)
    caplog.set_level("WARNING")
    assert len(predicted(nrt, "--data.max_prompt_tokens=64")) == 39
    assert "1 dropped" in caplog.text
    assert "questions.jsonl:8" in caplog.text
    (last,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("39 predictions")]
    for word in ("predictions.jsonl", "1 of 40", "questions.jsonl:8"):
        assert word in last


def test_answers_that_predict_does_not_read_are_not_refused(nrt: Command) -> None:
    questions(3, long=-1, answer="x" * 999)
    unusable = [{"id": str(3 + i), "question": "a4b*2c+2d+3?dc:", "answer": answer} for i, answer in
                enumerate([7, "", None, ["x"], {}])]  # fmt: skip
    with Path("questions.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in unusable)
    assert predicted(nrt) == [str(i) for i in range(8)]


# Checkpoints


def test_the_quickstart_keeps_the_best_and_the_last_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--data.train.size=96", "--data.val.size=8", "--data.test.size=8", "--trainer.val_check_interval=4"]
    cli = run(["fit", "--config", QUICKSTART, *small, "--trainer.default_root_dir=mine"])
    assert cli.trainer.global_step == 6
    kept = Path("mine/checkpoints")
    assert files(kept) == {"best.ckpt", "last.ckpt"}
    saved = {name: torch.load(kept / name, weights_only=True) for name in files(kept)}
    assert saved["best.ckpt"]["global_step"] == 4
    assert saved["last.ckpt"]["global_step"] == 6, "the weights of the last step, after the last validation"
    assert same_weights(cli, kept / "last.ckpt")
    out = capsys.readouterr().out
    assert "best checkpoint: mine/checkpoints/best.ckpt (val/exact_match 0." in out
    assert "last checkpoint: mine/checkpoints/last.ckpt" in out
    assert {path.parts[0] for path in map(Path, files())} == {"mine"}
    assert {"results.json", "checkpoints/last.ckpt", "tensorboard/nrt/config.yaml"} <= files("mine")


def test_a_second_run_in_the_folder_keeps_the_checkpoints_of_the_first(nrt: Command, of_best_and_last: Path) -> None:
    shutil.copytree(of_best_and_last, "out")
    before = Path("out/checkpoints/last.ckpt").read_bytes()
    nrt("fit", *KEPT, "--seed_everything=1")
    assert Path("out/checkpoints/last.ckpt").read_bytes() == before
    assert files("out/checkpoints") == {"best.ckpt", "last.ckpt", "best-v1.ckpt", "last-v1.ckpt"}


def test_auto_starts_from_the_beginning_and_then_resumes(nrt: Command, capsys: pytest.CaptureFixture[str]) -> None:
    whole = nrt("fit", *KEPT, "--trainer.max_steps=4", "--trainer.default_root_dir=whole")
    nrt("fit", *KEPT, "--trainer.max_steps=3", "--ckpt_path=auto")
    assert "ckpt_path=auto: no checkpoint in out/checkpoints" in capsys.readouterr().out
    resumed = nrt("fit", *KEPT, "--trainer.max_steps=4", "--ckpt_path=auto")
    assert "ckpt_path=auto: resuming out/checkpoints/last.ckpt (step 3)" in capsys.readouterr().out
    assert resumed.trainer.global_step == 4
    assert same_weights(whole, "out/checkpoints/last.ckpt")
    assert files("out/checkpoints") == {"best.ckpt", "last.ckpt"}, "a resumed run replaces its own"


def test_the_newest_is_the_one_of_the_most_steps(
    nrt: Command, of_best_and_last: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(of_best_and_last, "out")
    folder = Path("out/checkpoints")
    shutil.move(folder / "last.ckpt", folder / "a.ckpt")
    early = torch.load(folder / "best.ckpt", weights_only=True) | {"global_step": 1}
    torch.save(early, folder / "last.ckpt")
    (folder / "z.ckpt").write_text("half of a chec")
    nrt("validate", "--ckpt_path=last", *KEPT)
    assert "reading out/checkpoints/a.ckpt (step 2)" in capsys.readouterr().out


def test_auto_leaves_the_checkpoints_of_another_model_alone(
    nrt: Command, of_best_and_last: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(of_best_and_last, "out")
    sft = ["--config", str(CONFIGS / "methods" / "sft.yaml"), "--trainer.val_check_interval=2", "--data.passes=1"]
    cli = nrt("fit", *sft, *KEPT, "--trainer.logger=false", "--ckpt_path=auto")
    assert "Training starts from the beginning" in capsys.readouterr().out
    assert cli.trainer.global_step == 2


def test_best_is_found_in_a_folder_that_has_moved(
    nrt: Command, of_best_and_last: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(of_best_and_last, "moved")
    cli = nrt("validate", "--ckpt_path=best", "--trainer.default_root_dir=moved")
    assert "moved/checkpoints/best.ckpt" in capsys.readouterr().out
    assert same_weights(cli, "moved/checkpoints/best.ckpt")


@pytest.mark.parametrize(
    ("command", "word"), [("fit", "last"), ("validate", "best"), ("test", "last"), ("predict", "auto")]
)
def test_no_checkpoint_to_read_is_refused(nrt: Command, never_stepped: None, command: str, word: str) -> None:
    with pytest.raises(InputError, match=rf"ckpt_path='{word}'.*out/checkpoints") as caught:
        nrt(command, f"--ckpt_path={word}", *KEPT)
    assert "\n" not in str(caught.value)


def test_a_best_that_nobody_has_kept_is_refused(nrt: Command, of_fit_alone: Path) -> None:
    shutil.copytree(of_fit_alone, "out")
    with pytest.raises(InputError, match=r"ckpt_path='best'.*BestAndLast"):
        nrt("validate", "--ckpt_path=best")


def test_without_validation_only_the_last_is_kept(nrt: Command, caplog: pytest.LogCaptureFixture) -> None:
    nrt("fit", *KEPT, "--data.val=null", "--trainer.val_check_interval=null")
    assert files("out/checkpoints") == {"last.ckpt"}
    assert "no validation rows to measure val/exact_match" in caplog.text


def test_a_metric_that_nothing_logs_is_refused_at_the_first_validation(nrt: Command) -> None:
    with pytest.raises(InputError, match=r"BestAndLast\.monitor='val/exact_mach'.*'val/exact_match'"):
        nrt("fit", *KEPT, "--trainer.callbacks.monitor=val/exact_mach")


def test_checkpoints_can_be_switched_off(nrt: Command) -> None:
    nrt("fit", "--trainer.callbacks+=BestAndLast", "--trainer.enable_checkpointing=false")
    assert not [name for name in files() if name.endswith(".ckpt")]


def test_a_resumed_run_adds_to_its_training_time(nrt: Command) -> None:
    both = "[{class_path: ResultsFile, init_args: {path: results.json, name: mine}}, BestAndLast]"

    def seconds(*options: str) -> float:
        nrt("fit", f"--trainer.callbacks={both}", *options)
        return json.loads(Path("out/results.json").read_text())["mine"]["seconds"]

    seconds()
    last = Path("out/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    (results,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("ResultsFile"))
    results["seconds"] = 3600.0
    torch.save(checkpoint, last)
    assert 3600 <= seconds("--ckpt_path=auto") < 2 * 3600, "an hour in the checkpoint, and nothing left to do"


# The configuration that is kept


def test_a_config_that_is_not_of_a_run_is_never_written_over(tmp_path: Path, capsys, caplog) -> None:
    """Neither the user's `config.yaml` in the current directory, which is the log directory without a logger."""
    command, *args = small_args("fit", tmp_path, "--trainer.default_root_dir=null")
    mine = "# mine\ntrainer: {max_steps: 1}\n"
    Path("config.yaml").write_text(mine)
    run([command, *args, "--config=config.yaml"])
    run([command, *args])
    assert Path("config.yaml").read_text() == mine
    assert yaml.safe_load(Path("config-1.yaml").read_text())["trainer"]["max_steps"] == 2
    assert not Path("config-2.yaml").exists(), "the file of an earlier run is ours"
    assert "config-1.yaml" in caplog.text


def test_a_kept_config_that_is_given_or_edited_is_not_written_over(nrt: Command, of_fit_alone: Path) -> None:
    shutil.copytree(of_fit_alone, "out")
    kept = Path("out/config.yaml")
    before = kept.read_text()
    run(["fit", "--config", str(kept), "--trainer.max_steps=1"])
    assert kept.read_text() == before
    kept.write_text(before.replace("max_steps: 2", "max_steps: 3"))
    nrt("fit")
    assert "max_steps: 3" in kept.read_text()


def test_evaluation_does_not_replace_the_config_of_training(nrt: Command, of_fit_alone: Path) -> None:
    shutil.copytree(of_fit_alone, "out")
    before = Path("out/config.yaml").read_text()
    nrt("validate", "--ckpt_path=last")
    assert Path("out/config.yaml").read_text() == before
    assert yaml.safe_load(Path("out/config_validate.yaml").read_text())["ckpt_path"] == "last"


# The folder


def folder_of(*options: str) -> list[str]:
    callbacks = [
        {"class_path": "ResultsFile", "init_args": {"path": "results.json", "name": "mine"}},
        {"class_path": "ExportPolicy", "init_args": {"directory": "model"}},
        {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "kept", "save_last": True}},
    ]
    return [f"--trainer.callbacks={json.dumps(callbacks)}", *options]


def test_the_root_moves_everything(nrt: Command) -> None:
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    nrt("fit", *folder_of(*logger, "--trainer.default_root_dir=elsewhere/run"))
    assert {Path(name).parts[0] for name in files()} == {"elsewhere", "small.yaml"}
    assert {"results.json", "model/config.json", "kept/last.ckpt"} <= files("elsewhere/run")
    assert {Path(name).parts[0] for name in files("elsewhere/run")} == {"results.json", "model", "kept", "logs"}


def test_a_later_run_keeps_the_export_of_the_first_and_a_resumed_one_replaces_its_own(
    nrt: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    nrt("fit", *folder_of())
    first = Path("out/model/model.safetensors").read_bytes()
    nrt("fit", *folder_of("--model.optimizer.lr=0.01"))
    assert Path("out/model/model.safetensors").read_bytes() == first
    assert "exported to out/model-v1" in capsys.readouterr().out
    nrt("fit", *folder_of("--trainer.max_steps=3", "--ckpt_path=out/kept/last.ckpt"))
    assert Path("out/model/model.safetensors").read_bytes() != first
    assert "model-v2" not in {path.name for path in Path("out").iterdir()}


def test_a_folder_that_is_no_export_is_refused_before_the_first_step(nrt: Command, never_stepped: None) -> None:
    Path("out/model").mkdir(parents=True)
    Path("out/model/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out/model is not empty"):
        nrt("fit", *folder_of())


def test_fast_dev_run_leaves_no_baselines_behind(nrt: Command) -> None:
    before = files()
    nrt("fit", "--model.baseline_scorer=InitialBaseline", "--trainer.fast_dev_run=true")
    assert files() == before | {"small.yaml"}


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_fast_dev_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    questions(3, long=-1)
    before = {str(path) for path in Path.cwd().rglob("*")} | {str(tmp_path / "small.yaml")}
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    options = [*folder_of(*logger), "--predictions.path=new/predictions.jsonl", "--data.predict=questions.jsonl"]
    args = small_args(command, tmp_path, *options, "--trainer.fast_dev_run=true")
    monkeypatch.setattr("sys.argv", ["nrt-lightning", *args])
    main()
    assert {str(path) for path in Path.cwd().rglob("*")} == before


def test_a_run_that_stops_before_its_first_validation_keeps_the_last(nrt: Command) -> None:
    best = "--trainer.callbacks=nrt_lightning.BestAndLast"
    cli = nrt("fit", best, "--trainer.val_check_interval=1.0", "--trainer.max_steps=1")
    assert cli.trainer.global_step == 1
    assert [path.name for path in Path("out").rglob("*.ckpt")] == ["last.ckpt"]


def test_rows_of_train_that_are_held_out_are_test_rows(nrt: Command) -> None:
    results = [f"--trainer.callbacks{text}" for text in ("=nrt_lightning.ResultsFile", ".path=r.json", ".name=mine")]
    cli = nrt("fit", *results, "--data.test=null", "--data.test_rows=2", "--trainer.max_steps=1")
    assert len(cli.datamodule.encoded["test"]) == 2
    assert "exact_match" in json.loads(Path("out/r.json").read_text())["mine"]


def test_the_path_of_the_report_is_the_last_line_of_a_run_with_a_test(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    results = "{class_path: nrt_lightning.ResultsFile, init_args: {path: r.json, name: nrt}}"
    parts = f"[nrt_lightning.BestAndLast, nrt_lightning.RunReport, {results}]"
    run(
        [
            *small_args("fit", tmp_path),
            "--trainer.logger=CSVLogger",
            "--trainer.logger.save_dir=.",
            f"--trainer.callbacks={parts}",
        ]
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[-1] == f"report: {Path('out', 'report.html')}"
    assert sum(line.startswith("report:") for line in lines) == 1
    assert '"exact_match"' in (tmp_path / "out" / "report.html").read_text()
