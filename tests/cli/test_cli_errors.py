"""What users get wrong on the command line: one clear message, before anything is trained."""

from __future__ import annotations

import json
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
    assert "Did you mean" in last
    assert f"'{meant}'" in last
    assert option.partition("=")[0].rpartition(".")[2] in last or option.partition("=")[2].rpartition(".")[2] in last


def test_a_misspelled_module_ends_with_the_nearest(error_of: ErrorOf) -> None:
    assert "'SFTModule'" in error_of("fit", "--model=nrt_lightning.SFTModul").strip().splitlines()[-1]


def test_a_misspelled_name_in_a_file_ends_with_the_nearest(error_of: ErrorOf) -> None:
    Path("mine.yaml").write_text("model: {init_args: {samplng: {group_size: 4}}}\n")
    last = error_of("fit", "--config", "mine.yaml").strip().splitlines()[-1]
    assert last == "'samplng' is no argument of nrt_lightning.NRTModule. Did you mean 'sampling'?"


def test_a_misspelled_choice_is_answered_with_the_choices(error_of: ErrorOf) -> None:
    message = error_of("fit", "--model.aggregator.weighting=neg_log_prop")
    assert "neg_log_prop" in message
    assert "'neg_log_prob', 'inverse_prob'" in message


def test_a_text_where_a_number_belongs_is_no_misspelled_class(error_of: ErrorOf) -> None:
    message = error_of("fit", "--model.optimizer.lr=abc")
    assert "lr" in message
    assert "float" in message
    assert "is no class" not in message


def test_a_class_where_a_list_belongs_is_answered_with_how_to_add_to_it(error_of: ErrorOf) -> None:
    last = error_of("fit", "--model.filters=ZeroVarianceFilter").strip().splitlines()[-1]
    assert last == "model.filters is a list. Add to it: --model.filters+=ZeroVarianceFilter"
    assert "Did you mean 'ZeroVarianceFilter'" in error_of("fit", "--model.filters+=ZeroVariance")


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
    ("combiner", "other", "weights", "message"),
    [
        ("WeightedSumOfSignals", "nrt_lightning.Formatt", "", "Did you mean 'Format'"),
        ("WeightedSumOfSignals", "nrt_lightning.Format", "fromat: 1", "there is no signal 'fromat'. Did you mean"),
        ("GeometricMeanOfSignals", "nrt_lightning.Repetition", "", "signals.other can be -1.0, and a geometric mean"),
        (
            "WeightedSumOfSignals",
            "{class_path: nrt_lightning.FunctionSignal, init_args: {function: math.flor}}",
            "",
            "math has no function 'flor'. Did you mean 'floor'?",
        ),
    ],
)
def test_signals_that_do_not_exist_or_fit(error_of: ErrorOf, combiner: str, other: str, weights: str, message: str):
    Path("mine.yaml").write_text(SIGNALS.format(combiner=combiner, other=other, weights=weights))
    assert message in error_of("fit", "--config", "mine.yaml")


def test_a_multi_sample_bound_of_one_sample(error_of: ErrorOf) -> None:
    options = ["--model.aggregator=LogProb", "--model.advantage=MultiSampleBound", "--model.sampling.group_size=1"]
    assert "Set group_size to 2 or more" in error_of("fit", *options)


# Values that only a class can judge


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.sampling.group_size=1"], "sampling.group_size is 1, but GroupNormalized"),
        (["--model.sampling.refill_rounds=1"], "sampling.refill_rounds is 1, but nothing filters groups"),
        (["--model.token_weights=PosteriorTokenWeights"], "needs log-probs for rewards, not WeightedSum"),
        (["--model.filters+=EMADeviationFilter", "--model.filters.beta=-1"], "beta=-1"),
        (["--model.filters+=DifficultyBandFilter", "--model.filters.high=50"], "high=50.0 is out of range"),
        (["--model.baseline_scorer=ReferenceBaseline"], "baseline_scorer is ReferenceBaseline, but there is no ref"),
        (["--model.reference=EMAReference", "--model.reference.update_rate=2"], "update_rate=2.0 is out of range"),
        (["--model.kl_penalty.coef=0.1"], "but there is no reference"),
        (["--model.overlong=PenalizeOverlong", "--model.overlong.penalty=-1"], "overlong.penalty=-1"),
        (["--model.loss.sampler_correction.cap=0"], "sampler_correction.cap=0"),
        (["--model.loss.sampler_correction.cap=2", "--model.sampling.temperature=0"], "greedy traces have none"),
        (["--data.window_epochs=0"], "window_epochs=0 is too small"),
        (["--model.policy.marker=</s>"], "policy.marker '</s>' is already the tokenizer's eos_token"),
        (["--model.policy.marker=a"], "policy.marker 'a' is token"),
        (["--model.policy.marker= "], "policy.marker ' ': give it a text"),
        (["--model.policy.model=./nowhere"], "policy.model './nowhere': no such directory"),
        (["--model.policy.model=embedded:register-base"], "Did you mean 'registers-base'"),
        (["--model.loss.kl_coef=0.1"], "loss.kl_coef is 0.1, but there is no reference"),
        (["--model.policy.quantization=FourBit"], "Give policy.adapter one, for instance LoRA"),
        (["--model.policy.adapter=LoRA", "--model.policy.adapter.targets=[q_pro]"], "['q_pro'] match no linear layer"),
        (["--model.policy.adapter=LoRA", "--model.policy.adapter.rank=0"], "rank must be 1 or more"),
        (["--model.reference=AdapterDisabledReference"], "the policy has no adapter to disable"),
        (["--model.loss.marker_coef=-1"], "marker_coef=-1.0 is out of range"),
        (["--model.schedule.warmup=-1"], "schedule.warmup is -1.0"),
        (["--data.batch_size=0"], "batch_size=0 is too small"),
        (["--data.val_rows=2"], "val_rows=2 takes rows from `train`, but `val` is given too"),
        (["--data.train.size=0"], "size=0"),
    ],
)
def test_a_value_out_of_range_is_one_short_message(error_of: ErrorOf, options: list[str], message: str) -> None:
    found = error_of("fit", *options)
    assert message in found
    assert "Namespace" not in found
    assert len(found) < 600


# Files and directories


def test_no_data_file_of_that_name(error_of: ErrorOf) -> None:
    Path("train.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    message = error_of("fit", "--data.train=trian.jsonl")
    assert message == "error: trian.jsonl: no such file or directory. Did you mean 'train.jsonl'?"


def test_a_bad_row_is_named_by_file_and_line(error_of: ErrorOf) -> None:
    Path("train.jsonl").write_text('{"question": "a", "answer": "b"}\n{"qestion": "a", "answer": "b"}\n')
    message = error_of("fit", "--data.train=train.jsonl")
    assert message.startswith("error: train.jsonl:2: no column 'question'. Did you mean 'qestion'?")


def test_too_few_rows_for_a_window(error_of: ErrorOf) -> None:
    assert "8 rows do not fill one window" in error_of("fit", "--data.batch_size=16")


def test_there_is_no_data_to_predict(error_of: ErrorOf) -> None:
    message = error_of("predict", "--predictions.path=predictions.jsonl")
    assert "There is no predict data" in message


def test_window_and_accumulation_do_not_fit(error_of: ErrorOf) -> None:
    message = error_of("fit", "--data.window=3", "--trainer.accumulate_grad_batches=2")
    assert message.startswith("error: data.window is 3 micro-batches and trainer.accumulate_grad_batches is 2")


def test_an_output_directory_that_cannot_be_made(error_of: ErrorOf) -> None:
    Path("file").touch()
    message = error_of("fit", "--trainer.default_root_dir=file/out")
    assert message.startswith("error: trainer.default_root_dir 'file/out' cannot be written")


def test_a_prediction_file_that_cannot_be_made(error_of: ErrorOf) -> None:
    Path("file").touch()
    Path("questions.jsonl").write_text('{"question": "a"}\n')
    message = error_of("predict", "--data.predict=questions.jsonl", "--predictions.path=file/predictions.jsonl")
    assert message.startswith("error: predictions.path file/predictions.jsonl cannot be written")


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
def test_a_results_file_that_is_none(error_of: ErrorOf, content: str) -> None:
    Path("results.json").write_text(content)
    message = error_of("fit", *RESULTS, "--trainer.callbacks.path=results.json")
    assert "results.json is not a results file" in message
    assert Path("results.json").read_text() == content


def test_a_results_file_that_cannot_be_made(error_of: ErrorOf) -> None:
    Path("file").touch()
    message = error_of("fit", *RESULTS, "--trainer.callbacks.path=file/results.json")
    assert "file/results.json cannot be written" in message


# Checkpoints


def write_checkpoint(path: str, **policy: object) -> None:
    """What another run might have left, as far as it is looked at before the weights."""
    torch.save({"state_dict": {}, "nrt_lightning": {"policy": policy}, "pytorch-lightning_version": "2.6.6"}, path)


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_checkpoint_of_another_model(error_of: ErrorOf, command: str) -> None:
    write_checkpoint("other.ckpt", hidden_size=4096, vocabulary=128_257)
    message = error_of(command, "--ckpt_path=other.ckpt")
    assert message.startswith("error: The checkpoint is of another model than")
    assert "hidden_size 4096 (here 64)" in message
    assert "vocabulary 128257 (here 64)" in message
    assert "Give the model it was trained from as policy.model" in message


def test_no_checkpoint_of_that_name(error_of: ErrorOf) -> None:
    assert "none.ckpt" in error_of("fit", "--ckpt_path=none.ckpt")


def test_a_file_that_is_no_checkpoint(error_of: ErrorOf) -> None:
    Path("broken.ckpt").write_bytes(b"half a checkpoint")
    assert "broken.ckpt" in error_of("fit", "--ckpt_path=broken.ckpt")


# The run as a whole


def test_a_schedule_needs_an_end(error_of: ErrorOf) -> None:
    message = error_of("fit", "--trainer.max_steps=-1", "--trainer.max_epochs=-1")
    assert "trainer.max_steps" in message
    assert "ConstantSchedule" in message


def test_nothing_is_left_behind_by_a_command_that_fails(error_of: ErrorOf) -> None:
    Path("results.json").write_text(json.dumps({"other": {"exact_match": 0.5}}))
    error_of("fit", *RESULTS, "--trainer.callbacks.path=results.json", "--data.train=missing.jsonl")
    assert json.loads(Path("results.json").read_text()) == {"other": {"exact_match": 0.5}}
    assert not Path("out/checkpoints").exists()
