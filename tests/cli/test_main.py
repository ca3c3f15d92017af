"""Command lines that work, from the configs and options that users write."""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse._parameter_resolvers import get_signature_parameters
from lightning.pytorch import LightningDataModule, LightningModule
from safetensors.torch import load_file

import nrt_lightning
from cli.recipes import at_home
from cli.small_runs import CONFIGS, QUICKSTART, Command, small_args
from nrt_lightning import ArithmeticMean, GeometricMean, NRTModule, Policy, QADataModule, SFTModule, WeightedSum
from nrt_lightning.cli.lightning_cli import NRTCLI, Parser
from nrt_lightning.cli.main import main, run
from nrt_lightning.models.policy.policy import resolve
from nrt_lightning.tools.comparison import Comparison

FIELDS = ["id", "question", "trace", "answer", "marker_emitted"]
EMBEDDING = "model.embed_tokens.weight"


def weights(module: LightningModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.policy.network.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Written by a run of two steps."""
    directory = tmp_path_factory.mktemp("trained")
    before = os.environ.pop("PL_GLOBAL_SEED", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["nrt-lightning"])
        run(small_args("fit", directory, f"--trainer.default_root_dir={directory}"))
    os.environ.pop("PL_GLOBAL_SEED", None)
    if before is not None:
        os.environ["PL_GLOBAL_SEED"] = before
    (path,) = (directory / "checkpoints").glob("*.ckpt")
    return str(path)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Questions without answers."""
    path = tmp_path / "questions.jsonl"
    rows = [
        {"id": f"q{i}", "question": q} for i, q in enumerate(["a4b*2c+2d+3?dc:", "a1b+1c+1d+1?db:", "a0b+4c*2d*2?db:"])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def saved_in(checkpoint: str) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def read(path: str | Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# fit


def test_fit_trains_with_overrides_and_keeps_its_config(nrt: Command) -> None:
    cli = nrt("fit", "--model.aggregator=GeometricMean", "--model.optimizer.lr=0.01", "--data.batch_size=4")
    assert cli.trainer.global_step == 2
    assert cli.model.method.aggregator == GeometricMean()
    assert cli.datamodule.batch_size == 4
    assert not torch.equal(
        weights(cli.model)[EMBEDDING][:63],
        load_file(f"{resolve('embedded:registers-base')}/model.safetensors")[EMBEDDING][:63],
    )
    kept = yaml.safe_load(Path("out/config.yaml").read_text())
    assert kept["model"]["init_args"]["aggregator"]["class_path"] == "nrt_lightning.GeometricMean"
    assert kept["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.01


def test_a_later_config_changes_single_keys(nrt: Command, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {init_args: {aggregator: ArithmeticMean, loss: {marker_coef: 0.7}}}\n")
    cli = nrt("fit", "--config", str(mine), "--trainer.fast_dev_run=true")
    assert cli.model.method.aggregator == ArithmeticMean()
    assert (cli.model.method.loss.marker_coef, cli.model.method.loss.reduction.divisor) == (0.7, 32.0)


def test_a_later_option_of_another_class_drops_what_does_not_fit_it(nrt: Command) -> None:
    cli = nrt("fit", "--model.aggregator=WeightedSum", "--model.aggregator.weighting=inverse_prob",
              "--model.aggregator=GeometricMean", "--trainer.fast_dev_run=true")  # fmt: skip
    assert cli.model.method.aggregator == GeometricMean()


def test_print_config_can_be_read_back(nrt: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*args: str) -> str:
        with pytest.raises(SystemExit) as caught:
            run([*args, "--print_config"])
        assert caught.value.code in (0, None)
        return capsys.readouterr().out

    first = printed(*small_args("fit", tmp_path, "--model.aggregator=GeometricMean"))
    Path("printed.yaml").write_text(first)
    assert printed("fit", "--config", "printed.yaml") == first
    cli = run(["fit", "--config", "printed.yaml"])
    assert cli.model.method.aggregator == GeometricMean()
    assert cli.trainer.global_step == 2


def test_the_same_command_line_gives_the_same_weights(nrt: Command, checkpoint: str) -> None:
    first = {k.removeprefix("policy.model."): v for k, v in saved_in(checkpoint).items()}
    assert same(weights(nrt("fit").model), first)
    assert not same(weights(nrt("fit", "--seed_everything=1").model), first)


def test_fit_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(nrt: Command, checkpoint: str) -> None:
    whole = nrt("fit", "--trainer.max_steps=4", "--trainer.default_root_dir=whole")
    resumed = nrt("fit", "--trainer.max_steps=4", f"--ckpt_path={checkpoint}")
    assert resumed.trainer.global_step == 4
    assert same(weights(resumed.model), weights(whole.model))


def test_fit_starts_from_the_weights_of_its_own_checkpoint(nrt: Command, checkpoint: str) -> None:
    resumed = nrt("fit", f"--ckpt_path={checkpoint}")  # nothing left to do
    assert same({f"policy.model.{k}": v for k, v in weights(resumed.model).items()}, saved_in(checkpoint))


def test_results_are_tested_written_and_printed(nrt: Command, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/results.json").write_text('{"other": {"exact_match": 0.5, "seconds": 1.0}}')
    nrt("fit", "--trainer.callbacks=nrt_lightning.ResultsFile", "--trainer.callbacks.path=results.json",
        "--trainer.callbacks.name=mine")  # fmt: skip
    results = json.loads(Path("out/results.json").read_text())
    assert results["other"] == {"exact_match": 0.5, "seconds": 1.0}
    assert {"exact_match", "exact_match_forced", "confidence", "seconds"} <= results["mine"].keys()
    assert results["mine"]["seconds"] > 0
    out = capsys.readouterr().out
    assert "mine  |" in out
    assert "other |       0.500" in out
    assert "curves" not in out, "there is no logger"


@pytest.mark.parametrize(
    ("logger", "shown"),
    [
        (["TensorBoardLogger", "save_dir=.", "name=tb", "version=v"], "tensorboard --logdir out"),
        (["CSVLogger", "save_dir=.", "name=csv", "version=v"], "csv/v/metrics.csv"),
    ],
)
def test_where_the_curves_are_is_printed(
    nrt: Command, capsys: pytest.CaptureFixture[str], logger: list[str], shown: str
) -> None:
    kind, *settings = logger
    results = ["--trainer.callbacks=nrt_lightning.ResultsFile", "--trainer.callbacks.path=results.json",
               "--trainer.callbacks.name=mine"]  # fmt: skip
    nrt("fit", *results, f"--trainer.logger={kind}", *(f"--trainer.logger.{setting}" for setting in settings))
    [where] = re.findall(r"^curves: (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert where.endswith(shown)
    assert Path(where.split()[-1]).exists()


# The other module


def test_a_later_config_switches_to_sft_and_keeps_the_policy(nrt: Command) -> None:
    cli = nrt("fit", "--config", str(CONFIGS / "methods" / "sft.yaml"), "--trainer.val_check_interval=2",
              "--data.passes=1", "--model.policy.marker=<|mine|>")  # fmt: skip
    assert isinstance(cli.model, SFTModule)
    assert cli.model.policy.tokenizer.decode([cli.model.policy.markup.marker_ids[0]]) == "<|mine|>"
    assert Path(cli.trainer.logger.log_dir).name == "sft"
    results = json.loads(Path("out/results.json").read_text())
    assert results.keys() == {"sft"}
    assert {"exact_match", "exact_match_forced", "seconds"} <= results["sft"].keys()


def test_trace_samples_leave_sft_alone(nrt: Command) -> None:
    cli = nrt("fit", "--config", str(CONFIGS / "methods" / "sft.yaml"), "--trainer.val_check_interval=2",
              "--trainer.callbacks=nrt_lightning.TraceSamples", "--trainer.callbacks.every_n_steps=1")  # fmt: skip
    assert cli.trainer.global_step == 2


# validate, test, predict


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluates_a_checkpoint(nrt: Command, checkpoint: str, command: str) -> None:
    cli = nrt(command, f"--ckpt_path={checkpoint}")
    prefix = {"validate": "val", "test": "test"}[command]
    metrics = {name.removeprefix(f"{prefix}/"): float(value) for name, value in cli.trainer.callback_metrics.items()}
    assert {"exact_match", "exact_match_forced", "confidence", "marker_rate", "trace_tokens"} <= metrics.keys()
    assert 0 < metrics["confidence"] < 1
    assert same({f"policy.model.{k}": v for k, v in weights(cli.model).items()}, saved_in(checkpoint))


def predicted(nrt: Command, questions: Path, path: str, *options: str) -> list[dict[str, object]]:
    nrt("predict", f"--data.predict={questions}", "--data.eval_batch_size=2", f"--predictions.path={path}", *options)
    return read(path)


def test_predicts_questions_from_a_file(nrt: Command, checkpoint: str, questions: Path) -> None:
    rows = predicted(nrt, questions, "predictions.jsonl", f"--ckpt_path={checkpoint}")
    assert [list(row) for row in rows] == [FIELDS] * 3
    assert [row["id"] for row in rows] == ["q0", "q1", "q2"]
    assert rows[1]["question"] == "a1b+1c+1d+1?db:"
    assert all(isinstance(row["trace"], str) and isinstance(row["marker_emitted"], bool) for row in rows)
    assert any(row["trace"] for row in rows)


def test_greedy_predictions_do_not_hang_on_the_seed(nrt: Command, questions: Path) -> None:
    assert predicted(nrt, questions, "a.jsonl") == predicted(nrt, questions, "b.jsonl", "--seed_everything=1")


def test_sampled_predictions_follow_from_the_seed(nrt: Command, questions: Path) -> None:
    warm = "--model.predict_temperature=1"
    first = predicted(nrt, questions, "a.jsonl", warm)
    assert first == predicted(nrt, questions, "b.jsonl", warm)
    assert first != predicted(nrt, questions, "c.jsonl", warm, "--seed_everything=1")


def test_options_win_over_the_settings_in_the_checkpoint(nrt: Command, checkpoint: str) -> None:
    cli = nrt("validate", f"--ckpt_path={checkpoint}", "--model.predict_temperature=1")
    assert cli.model.predict_temperature == 1


def test_predicts_from_an_exported_directory(nrt: Command, questions: Path) -> None:
    trained = nrt("fit", "--model.optimizer.lr=0.01")
    trained.model.policy.network.save_pretrained("exported")
    trained.model.policy.tokenizer.save_pretrained("exported")
    (path,) = Path("out/checkpoints").glob("*.ckpt")
    from_checkpoint = predicted(nrt, questions, "checkpoint.jsonl", f"--ckpt_path={path}")
    options = [f"--data.predict={questions}", "--data.eval_batch_size=2"]
    cli = nrt("predict", *options, "--model.policy.model=./exported", "--predictions.path=exported.jsonl")
    assert not cli.model.policy.marker_is_new
    assert cli.model.policy.markup.marker_ids[0] == trained.model.policy.markup.marker_ids[0]
    assert read("exported.jsonl") == from_checkpoint


def test_predictions_are_not_overwritten_unless_asked(nrt: Command, questions: Path) -> None:
    Path("predictions.jsonl").write_text("precious\n")
    options = [f"--data.predict={questions}", "--predictions.path=predictions.jsonl"]
    with pytest.raises(ValueError, match=r"predictions.path=predictions.jsonl .*predictions.overwrite=true"):
        nrt("predict", *options)
    assert Path("predictions.jsonl").read_text() == "precious\n"
    nrt("predict", *options, "--predictions.overwrite=true")
    assert len(read("predictions.jsonl")) == 3


def test_sft_predicts_in_the_same_fields(nrt: Command, questions: Path) -> None:
    nrt("predict", "--config", str(CONFIGS / "methods" / "sft.yaml"), f"--data.predict={questions}",
        "--predictions.path=predictions.jsonl", "--trainer.callbacks=[]", "--trainer.logger=false")  # fmt: skip
    rows = read("predictions.jsonl")
    assert [list(row) for row in rows] == [FIELDS] * 3
    assert {(row["trace"], row["marker_emitted"]) for row in rows} == {(None, None)}


# The configs and the command itself


def command_of(config: Path) -> list[str]:
    """The arguments of the command in a config's first line, with absolute paths."""
    first = config.read_text().splitlines()[0]
    assert first.startswith("# nrt-lightning fit --config nrt:"), first
    words = shlex.split(first.removeprefix("# nrt-lightning "))
    return [f"{CONFIGS}/{word.removeprefix('nrt:')}.yaml" if word.startswith("nrt:") else word for word in words]


COMPARED = CONFIGS / "comparisons" / "methods.yaml"
COMPARISONS = sorted(set(COMPARED.parent.glob("*.yaml")) - {COMPARED})
METHODS = sorted((CONFIGS / "methods").glob("*.yaml"))  # each of them trains in tests/methods/test_forward_passes.py
ALL = sorted(set(CONFIGS.rglob("*.yaml")) - {COMPARED, *COMPARISONS, *METHODS})
WHOLE = [str(CONFIGS / "experiments" / f"{name}.yaml") for name in ("single_gpu_qlora", "llama31_8b_tulu3_nrt_ws")]


@pytest.mark.parametrize("config", ALL, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_is_instantiated_by_the_command_in_its_first_line(config: Path, tmp_path: Path) -> None:
    command, *args = command_of(config)
    assert command == "fit"
    assert str(config) in args
    if config.stem in ("wandb", "mlflow"):
        pytest.importorskip(config.stem)
    if any("ReasoningGymSource" in Path(arg).read_text() for arg in args if arg.endswith(".yaml")):
        pytest.importorskip("reasoning_gym")
    args += at_home(args, tmp_path)
    cli = NRTCLI(LightningModule, LightningDataModule, run=False, args=args, subclass_mode_model=True,
                 subclass_mode_data=True, auto_configure_optimizers=False, parser_class=Parser)  # fmt: skip
    given = yaml.safe_load(config.read_text())
    assert isinstance(cli.datamodule, QADataModule)
    if name := given.get("model", {}).get("class_path"):
        assert type(cli.model).__name__ == name.split(".")[-1]
    for key, value in given.get("trainer", {}).items():
        if key in ("precision", "max_epochs", "max_steps", "val_check_interval", "num_nodes"):
            assert getattr(cli.trainer, key) == value


@pytest.mark.slow
@pytest.mark.parametrize("config", COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_is_of_runs_that_can_be_parsed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    words = config.read_text().splitlines()[0].split()[4::2]
    files = [CONFIGS / f"{word.removeprefix('nrt:')}.yaml" for word in words]
    assert files[-1] == config
    settings: dict[str, Any] = {}
    for file in files:
        settings |= yaml.safe_load(file.read_text())
    comparison = Comparison(**settings)
    assert config.stem in comparison.directory
    for run_ in {run_.method: run_ for run_ in comparison.runs}.values():
        with pytest.raises(SystemExit) as caught:
            run([*run_.arguments, "--print_config"])
        assert caught.value.code in (0, None), run_.name


def test_every_method_says_where_it_comes_from() -> None:
    """After the command: a source, and an equation, for all but what is nobody's."""
    for config in METHODS:
        lines = config.read_text().splitlines()
        head = " ".join(lines[2 : next(i for i, line in enumerate(lines) if not line.startswith("#"))])
        assert lines[1] == "#"
        if lines[0].count("nrt:methods/") > 1:  # over another method, which says it
            assert lines[0].split("nrt:methods/")[1].split()[0] + ".yaml" in head
            continue
        assert "arXiv 2" in head or config.stem == "sft", config.stem
        assert "=" in head or "-mean_i log c_i" in head, config.stem


def test_settings_of_every_class_have_types(nrt: Command) -> None:
    """Annotations that cannot be resolved would switch off the checks of a class's settings, silently."""
    for name in nrt_lightning.__all__:
        cls = getattr(nrt_lightning, name)
        if inspect.isclass(cls) and not issubclass(cls, Exception):
            untyped = [p.name for p in get_signature_parameters(cls) if isinstance(p.annotation, str)]
            assert not untyped, f"{name}: {untyped}"


def test_signals_and_their_settings_by_options(nrt: Command) -> None:
    method = str(CONFIGS / "methods" / "rlpr_original.yaml")
    options = ["--model.signals.signals.repetition.n=5", "--model.signals.weights.format=0.5"]
    cli = nrt("fit", "--config", method, *options, "--trainer.fast_dev_run=true")
    assert cli.model.method.signals.signals["repetition"].n == 5
    assert cli.model.method.signals.weights == {"gain": 0.9, "format": 0.5, "repetition": 1.0}


@pytest.mark.parametrize("config", [QUICKSTART, *WHOLE])
def test_every_key_of_a_config_to_start_from_has_a_comment(config: str) -> None:
    lines = Path(config).read_text().splitlines()
    keys = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(keys) > 60
    bare = [line.strip().removeprefix("- ") for line in keys if "#" not in line]
    assert [key for key in bare if not key.startswith(("class_path:", "init_args:"))] == []


def test_a_function_beside_the_command_is_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for `python -m`, though the command's own directory is another."""
    Path("of_mine.py").write_text("def brevity(text):\n    return 1 / (1 + len(text.trace))\n")
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    signal = "--model.signals.signals.brevity"
    options = ["--model.signals=WeightedSumOfSignals", f"{signal}=FunctionSignal", f"{signal}.function=of_mine.brevity"]
    monkeypatch.setattr("sys.argv", ["nrt-lightning", *small_args("fit", tmp_path, *options, "--trainer.max_steps=1")])
    main()
    assert (tmp_path / "out" / "config.yaml").exists()


def test_python_m_is_the_command(
    nrt: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = entry_points(group="console_scripts", name="nrt-lightning")
    assert command.load() is main
    monkeypatch.setattr("sys.argv", ["nrt-lightning", "fit", "--config", QUICKSTART, "--print_config"])
    texts = []
    for start in (main, lambda: runpy.run_module("nrt_lightning", run_name="__main__")):
        with pytest.raises(SystemExit):
            start()
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert "class_path: nrt_lightning.NRTModule" in texts[0]


def test_classes_of_the_package_need_no_module_name() -> None:
    """In a process of its own: here, other tests have imported everything."""
    options = ["--model=NRTModule", "--model.policy.model=embedded:registers-base", "--model.schedule=CosineSchedule",
               "--data=QADataModule", "--data.train=RegisterPrograms", "--trainer.callbacks=TraceSamples"]  # fmt: skip
    command = [sys.executable, "-m", "nrt_lightning", "fit", *options, "--print_config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("NRTModule", "CosineSchedule", "QADataModule", "RegisterPrograms", "TraceSamples"):
        assert f"class_path: nrt_lightning.{name}" in done.stdout


def test_modules_built_by_hand_are_those_of_the_command_line(nrt: Command) -> None:
    """The configs' defaults are the constructors' defaults: nothing is set behind the user's back."""
    cli = nrt("fit", "--trainer.fast_dev_run=true")
    module = NRTModule(Policy("embedded:registers-base"))
    assert (cli.model.method.aggregator, cli.model.method.advantage, cli.model.method.token_weights) == (
        module.method.aggregator, module.method.advantage, module.method.token_weights
    )  # fmt: skip
    assert cli.model.method.aggregator == WeightedSum()


def test_metrics_of_evaluation_come_from_yaml(nrt, tmp_path) -> None:
    config = tmp_path / "metrics.yaml"
    config.write_text("""
        model:
          init_args:
            metrics:
              - {class_path: torchmetrics.text.ROUGEScore, init_args: {rouge_keys: rougeL}}
              - torchmetrics.text.CHRFScore
              - nrt_lightning.ExactMatch
    """)
    cli = nrt("validate", f"--config={config}")
    assert {"val/rougeL_fmeasure", "val/CHRFScore", "val/ExactMatch"} <= cli.trainer.callback_metrics.keys()
    config.write_text("model: {init_args: {metrics: {letters: torchmetrics.text.CharErrorRate}}}")
    assert "val/letters" in nrt("validate", f"--config={config}").trainer.callback_metrics
