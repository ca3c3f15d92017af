"""What users get wrong on the command line: one clear message, before anything is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli.small_runs import small_args
from nrt_lightning import NRTModule
from nrt_lightning.cli.main import main

ErrorOf = Callable[..., str]


@pytest.fixture
def error_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ErrorOf:
    """The message with which a small command ends."""

    def never(*args: object) -> None:
        raise AssertionError("a step was taken")

    for step in ("training_step", "validation_step", "predict_step"):
        monkeypatch.setattr(NRTModule, step, never)

    def command(name: str, *options: str) -> str:
        monkeypatch.setattr("sys.argv", ["nrt-lightning", *small_args(name, tmp_path, *options)])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        assert code not in (0, None)
        return code if isinstance(code, str) else capsys.readouterr().err

    return command


# Names


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--model.aggregator=GeometricMeen", "GeometricMean"),
        ("--model.aggregator=nrt_lightning.GeometricMeen", "GeometricMean"),
        ("--model.agregator=GeometricMean", "aggregator"),
        ("--model.aggregator.weighing=inverse_prob", "weighting"),
        ("--model.sampling.groop_size=4", "group_size"),
        ("--model.loss.marker_coeff=1", "marker_coef"),
        ("--model.policy.markr=x", "marker"),
        ("--data.batch_sise=4", "batch_size"),
        ("--data.train.sise=4", "size"),
        ("--trainer.max_stepz=4", "trainer.max_steps"),
        ("--trainer.precission=32", "trainer.precision"),
        ("--predictions.paht=x", "predictions.path"),
    ],
)
def test_a_misspelled_name_ends_with_the_nearest(error_of: ErrorOf, option: str, meant: str) -> None:
    last = error_of("fit", option).strip().splitlines()[-1]
    assert f"'{meant}'" in last
    assert option.partition("=")[0].rpartition(".")[2] in last or option.partition("=")[2].rpartition(".")[2] in last


def test_a_misspelled_module_ends_with_the_nearest(error_of: ErrorOf) -> None:
    assert "'SFTModule'" in error_of("fit", "--model=nrt_lightning.SFTModul").strip().splitlines()[-1]


def test_a_misspelled_name_in_a_file_ends_with_the_nearest(error_of: ErrorOf) -> None:
    Path("mine.yaml").write_text("model: {init_args: {samplng: {group_size: 4}}}\n")
    last = error_of("fit", "--config", "mine.yaml").strip().splitlines()[-1]
    for word in ("'samplng'", "nrt_lightning.NRTModule", "'sampling'"):
        assert word in last


def test_a_misspelled_choice_is_answered_with_the_choices(error_of: ErrorOf) -> None:
    message = error_of("fit", "--model.aggregator.weighting=neg_log_prop")
    assert "neg_log_prop" in message
    assert "'neg_log_prob', 'inverse_prob'" in message


def test_a_text_where_a_number_belongs_is_not_a_misspelled_class(error_of: ErrorOf) -> None:
    message = error_of("fit", "--model.optimizer.lr=abc")
    assert "lr" in message
    assert "float" in message
    assert "class" not in message.strip().splitlines()[-1]


def test_a_class_where_a_list_belongs_is_answered_with_how_to_add_to_it(error_of: ErrorOf) -> None:
    last = error_of("fit", "--model.filters=ZeroVarianceFilter").strip().splitlines()[-1]
    assert "--model.filters+=ZeroVarianceFilter" in last
    assert "'ZeroVarianceFilter'" in error_of("fit", "--model.filters+=ZeroVariance").strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.strategy=fsdp"], ("fsdp", "GPU")),
        (["--trainer.strategy=nonsense"], ("strategy", "nonsense")),
        (["--trainer.num_nodes=0"], ("num_nodes", "0")),
        (["--trainer.precision=transformer-engine"], ("transformer_engine",)),
        (["--config=nrt:trainer/fsdp2", "--trainer.devices=1"], ("data_parallel_size to 1", "trainer.devices")),
        (["--config=nrt:trainer/fsdp2", "--trainer.devices=4"], ("data_parallel_size to 4", "trainer.devices")),
    ],
)
def test_what_the_trainer_refuses_is_one_line(error_of: ErrorOf, options: list[str], words: tuple[str, ...]) -> None:
    message = error_of("fit", "--trainer.accelerator=cpu", *options)
    assert message.startswith("error: trainer")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_no_config_file_of_that_name(error_of: ErrorOf) -> None:
    assert "nofile.yaml" in error_of("fit", "--config=nofile.yaml")


SIGNALS = """
model:
  init_args:
    signals:
      class_path: nrt_lightning.{combiner}
      init_args:
        signals:
          format: nrt_lightning.Format
          other: {other}
        weights: {{{weights}}}
"""


@pytest.mark.parametrize(
    ("combiner", "other", "weights", "words"),
    [
        ("WeightedSumOfSignals", "nrt_lightning.Formatt", "", ["'Format'"]),
        ("WeightedSumOfSignals", "nrt_lightning.Format", "fromat: 1", ["'fromat'", "'format'"]),
        ("GeometricMeanOfSignals", "nrt_lightning.Repetition", "", ["signals.other", "-1.0"]),
        (
            "WeightedSumOfSignals",
            "{class_path: nrt_lightning.FunctionSignal, init_args: {function: math.flor}}",
            "",
            ["math", "'flor'", "'floor'"],
        ),
    ],
)
def test_signals_that_do_not_exist_or_fit(error_of: ErrorOf, combiner: str, other: str, weights: str, words: list[str]):
    Path("mine.yaml").write_text(SIGNALS.format(combiner=combiner, other=other, weights=weights))
    message = error_of("fit", "--config", "mine.yaml")
    for word in words:
        assert word in message


def test_a_multi_sample_bound_of_one_sample(error_of: ErrorOf) -> None:
    options = ["--model.aggregator=LogProb", "--model.advantage=MultiSampleBound", "--model.sampling.group_size=1"]
    message = error_of("fit", *options)
    assert "group_size" in message
    assert "MultiSampleBound" in message


@pytest.mark.parametrize("name", ["tokenizer", "tokeniser"])
def test_the_tokenizer_of_a_live_model_is_no_option(error_of: ErrorOf, name: str) -> None:
    message = error_of("fit", f"--model.policy.{name}=x").splitlines()[-1]
    assert f"{name!r} is not an argument of nrt_lightning.Policy" in message
    assert "'tokenizer'" not in message.partition("Policy")[2]


# Values that only a class can check


# Each message names the settings in question; the value follows the first one.
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.sampling.group_size=1"], r"sampling.group_size\W+(is )?1\b.*GroupNormalized"),
        (["--model.sampling.refill_rounds=1"], r"sampling.refill_rounds\W+(is )?1\b.*filter"),
        (["--model.token_weights=PosteriorTokenWeights"], r"PosteriorTokenWeights.*WeightedSum"),
        (["--model.filters+=EMADeviationFilter", "--model.filters.beta=-1"], r"beta\W+(is )?-1\b"),
        (["--model.filters+=DifficultyBandFilter", "--model.filters.high=50"], r"high\W+(is )?50\b"),
        (["--model.baseline_scorer=ReferenceBaseline"], r"baseline_scorer\W+(is )?ReferenceBaseline.*reference"),
        (["--model.reference=EMAReference", "--model.reference.update_rate=2"], r"update_rate\W+(is )?2\b"),
        (["--model.kl_penalty.coef=0.1"], r"kl_penalty.*reference"),
        (["--model.overlong=PenalizeOverlong", "--model.overlong.penalty=-1"], r"overlong.penalty\W+(is )?-1\b"),
        (
            ["--model.loss.sampler_correction=TruncatedImportance", "--model.loss.sampler_correction.cap=0"],
            r"sampler_correction.cap\W+(is )?0\b",
        ),
        (
            ["--model.loss.sampler_correction=TruncatedImportance", "--model.sampling.temperature=0"],
            r"sampler_correction|temperature",
        ),
        (["--data.window_epochs=0"], r"data.window_epochs=0 "),
        (["--model.policy.marker=</s>"], r"policy.marker\W+</s>'.*eos_token"),
        (["--model.policy.marker=Ä"], r"policy.marker\W+Ä'"),
        (["--model.policy.answer_end=Ä"], r"policy.answer_end\W+Ä'"),
        (["--model.policy.marker= "], r"policy.marker\W+' '"),
        (["--model.policy.model=./nowhere"], r"policy.model\W+nowhere'"),
        (["--model.policy.model=embedded:register-base"], r"policy.model\W+embedded:register-base'.*'registers-base'"),
        (["--model.loss.kl_coef=0.1"], r"loss.kl_coef\W+(is )?0.1\b.*reference"),
        (["--model.policy.quantization=FourBit"], r"policy.adapter"),
        (["--model.policy.adapter=LoRA", "--model.policy.adapter.targets=[q_pro]"], r"'q_pro'"),
        (["--model.policy.adapter=LoRA", "--model.policy.adapter.rank=0"], r"rank"),
        (["--model.reference=AdapterDisabledReference"], r"adapter"),
        (["--model.loss.marker_coef=-1"], r"marker_coef\W+(is )?-1"),
        (["--model.schedule.warmup=-1"], r"schedule.warmup\W+(is )?-1"),
        (["--data.batch_size=0"], r"data.batch_size=0 "),
        (["--data.val_rows=2"], r"val_rows=2 .*`train`.*`val`"),
        (["--data.train.size=0"], r"size=0"),
    ],
)
def test_a_value_out_of_range_is_one_short_message(error_of: ErrorOf, options: list[str], message: str) -> None:
    found = error_of("fit", *options)
    assert re.search(message, found), found
    assert "Namespace" not in found
    assert len(found) < 600


# Files and directories


def test_no_data_file_of_that_name(error_of: ErrorOf) -> None:
    Path("train.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    message = error_of("fit", "--data.train=trian.jsonl")
    assert message.startswith("error: trian.jsonl: ")
    assert "'train.jsonl'" in message


def test_a_bad_row_is_named_by_file_and_line(error_of: ErrorOf) -> None:
    Path("train.jsonl").write_text('{"question": "a", "answer": "b"}\n{"qestion": "a", "answer": "b"}\n')
    message = error_of("fit", "--data.train=train.jsonl")
    assert message.startswith("error: train.jsonl:2: ")
    assert "'question'" in message
    assert "'qestion'" in message


def test_too_few_rows_for_a_window(error_of: ErrorOf) -> None:
    assert re.search(r"8 .*rows.* 16.*batch_size=16", error_of("fit", "--data.batch_size=16"))


def test_there_is_no_data_to_predict(error_of: ErrorOf) -> None:
    assert "data.predict " in error_of("predict", "--predictions.path=predictions.jsonl")


def test_window_and_accumulation_do_not_fit(error_of: ErrorOf) -> None:
    message = error_of("fit", "--data.window=3", "--trainer.accumulate_grad_batches=2")
    assert re.search(r"data.window\W+(is )?3\b.*trainer.accumulate_grad_batches\W+(is )?2\b", message)


def test_a_strategy_that_trains_copies(error_of: ErrorOf) -> None:
    message = error_of("fit", "--trainer.strategy=ddp_spawn", "--trainer.devices=2", "--trainer.accelerator=cpu")
    assert re.search(r"trainer\.strategy is ddp_spawn.*untrained.*Use ddp", message)


def test_an_output_directory_that_cannot_be_made(error_of: ErrorOf) -> None:
    Path("file").touch()
    message = error_of("fit", "--trainer.default_root_dir=file/out")
    assert message.startswith("error: trainer.default_root_dir='file/out' ")


def test_a_prediction_file_that_cannot_be_made(error_of: ErrorOf) -> None:
    Path("file").touch()
    Path("questions.jsonl").write_text('{"question": "a"}\n')
    message = error_of("predict", "--data.predict=questions.jsonl", "--predictions.path=file/predictions.jsonl")
    assert message.startswith("error: predictions.path=file/predictions.jsonl ")


RESULTS = ["--trainer.callbacks=nrt_lightning.ResultsFile", "--trainer.callbacks.name=mine"]


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "",
        '"text"',
        "[1, 2]",
        '{"other": 3}',
    ],
)
def test_a_file_that_is_not_a_results_file(error_of: ErrorOf, content: str) -> None:
    Path("out").mkdir()
    Path("out/results.json").write_text(content)
    message = error_of("fit", *RESULTS, "--trainer.callbacks.path=results.json")
    assert message.startswith("error: ResultsFile.path=")
    assert "results.json" in message
    assert Path("out/results.json").read_text() == content


def test_a_results_file_that_cannot_be_made(error_of: ErrorOf) -> None:
    Path("out").mkdir()
    Path("out/file").touch()
    message = error_of("fit", *RESULTS, "--trainer.callbacks.path=file/results.json")
    assert message.startswith("error: ResultsFile.path=")
    assert "file/results.json" in message


# Checkpoints


def write_checkpoint(path: str, **policy: object) -> None:
    """The parts of another run's checkpoint that are read before the weights."""
    torch.save({"state_dict": {}, "nrt_lightning": {"policy": policy}, "pytorch-lightning_version": "2.6.6"}, path)


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_checkpoint_of_another_model(error_of: ErrorOf, command: str) -> None:
    write_checkpoint("other.ckpt", hidden_size=4096, vocabulary=128_257)
    message = error_of(command, "--ckpt_path=other.ckpt")
    for pattern in (r"hidden_size\W4096\b.*\b64\b", r"vocabulary\W128257\b.*\b64\b", r"policy\.model"):
        assert re.search(pattern, message), message


def test_no_checkpoint_of_that_name(error_of: ErrorOf) -> None:
    assert "none.ckpt" in error_of("fit", "--ckpt_path=none.ckpt")


def test_a_file_that_is_not_a_checkpoint(error_of: ErrorOf) -> None:
    Path("broken.ckpt").write_bytes(b"half a checkpoint")
    assert "broken.ckpt" in error_of("fit", "--ckpt_path=broken.ckpt")


# The run as a whole


def test_a_schedule_needs_an_end(error_of: ErrorOf) -> None:
    message = error_of("fit", "--trainer.max_steps=-1", "--trainer.max_epochs=-1")
    assert message.startswith("error: ")
    assert "trainer.max_steps" in message
    assert "ConstantSchedule" in message


def test_nothing_is_left_behind_by_a_command_that_fails(error_of: ErrorOf) -> None:
    Path("out").mkdir()
    Path("out/results.json").write_text(json.dumps({"other": {"exact_match": 0.5}}))
    error_of("fit", *RESULTS, "--trainer.callbacks.path=results.json", "--data.train=missing.jsonl")
    assert json.loads(Path("out/results.json").read_text()) == {"other": {"exact_match": 0.5}}
    assert not Path("out/checkpoints").exists()
