"""Errors of the command line are one line: the culprit, the nearest name, the fix."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from nrt_lightning.cli.files_given import check_files
from nrt_lightning.cli.main import main

MINE = """
from nrt_lightning import RewardAggregator

class HalfPower(RewardAggregator):
    def __call__(self, *scores): ...

class NoCall(RewardAggregator):
    pass

class Wrong(RewardAggregator):
    def __init__(self, power: int = 1):
        raise ValueError("two things:\\n  - first\\n  - second")

    def __call__(self, *scores): ...
"""
FILES = {
    "of_mine.py": MINE,
    "sampled.yaml": "model: {init_args: {sampling: {group_size: 4}}}",
    "key.yaml": "modle: {init_args: {sampling: {group_size: 4}}}",
    "trainer.yaml": "trainer: {max_stepz: 4}",
    "classes.yaml": "model: {init_args: {filters: [{class_path: ZeroVarianceFiltr}]}}",
    "broken.yaml": "trainer: {max_steps: 1\n  a: b: c",
    "tabs.yaml": "trainer:\n\tmax_steps: 1\n",
    "empty.yaml": "# nothing yet\n",
    "null.yaml": "data: {}\ntrainer:\n",
    "args.yaml": "model:\n  init_args:\n",
    "twice.yaml": "trainer: {max_steps: 1}\nmodel: {}\ntrainer: {max_epochs: 1}\n",
    "inner.yaml": "data:\n  init_args:\n    train: a.csv\n    val: [{x: 1}]\n    train: b.csv\n",
}
QUICK = ["fit", "--config=nrt:quickstart"]
SFT = [*QUICK, "--config=nrt:methods/sft"]


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("latin.yaml").write_bytes("# Größe\n".encode("latin-1"))
    Path("folder").mkdir()
    Path("sub").mkdir()
    Path("empty.yaml").rename("sub/empty.yaml")
    Path("q.csv").write_text("question,answer\n1,2\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "of_mine", raising=False)


CASES = [
    (["compar"], ["'compar'", "'compare'"]),
    (["fitt"], ["'fitt'", "'fit'"]),
    (["fit", "--model.policy.model=m", *QUICK[1:]], ["model has no class yet", "config", "before --model.policy"]),
    (["fit", "--data.batch_size=4", *QUICK[1:]], ["data has no class yet", "before --data.batch_size"]),
    ([*QUICK, "--optimizer.lr=1"], ["--optimizer.lr", "'model.optimizer.lr'"]),
    ([*QUICK, "--lr=1"], ["--lr ", "'model.optimizer.lr'"]),
    ([*QUICK, "--batch_size=4"], ["--batch_size", "'data.batch_size'"]),
    ([*QUICK, "--group_size=4"], ["--group_size", "'model.sampling.group_size'"]),
    ([*QUICK, "--max_steps=4"], ["--max_steps", "'trainer.max_steps'"]),
    ([*QUICK, "--data.batch-size=4"], ["data.batch-size", "'batch_size'"]),
    ([*QUICK, "--model.policy=Qwen/Qwen3-0.6B"], ["--model.policy.model=Qwen/Qwen3-0.6B"]),
    ([*QUICK, "--model.policy=embedded:registers-base"], ["--model.policy.model=embedded:registers-base"]),
    ([*QUICK, "--model=./mine"], ["--model.policy.model=./mine"]),
    ([*QUICK, "--model.aggregator=HalfPowr"], ["model.aggregator", "'HalfPowr'", "'of_mine.HalfPower'"]),
    ([*QUICK, "--model.aggregator=of_mine.HalfPowr"], ["'of_mine.HalfPowr'", "'of_mine.HalfPower'"]),
    ([*QUICK, "--model.aggregator=of_min.HalfPower"], ["'of_min.HalfPower'", "'of_mine.HalfPower'"]),
    ([*QUICK, "--model.aggregator=Nothing"], ["'Nothing'", "'GeometricMean'", "'Prob'"]),
    (
        [*QUICK, "--model.aggregator=of_mine.HalfPower", "--model.aggregator.p=1"],
        ["'p'", "of_mine.HalfPower", "no set"],
    ),
    ([*QUICK, "--model.aggregator=of_mine.Wrong"], ["two things: - first - second"]),
    ([*QUICK, "--model.advantage=GeometricMean"], ["model.advantage", "'GeometricMean'"]),
    ([*QUICK, "--model.advantage=nrt_lightning.GeometricMean"], ["model.advantage", "'LeaveOneOut'"]),
    ([*QUICK, "--model.optimizer=AdamX"], ["model.optimizer", "'AdamX'", "'Adam'"]),
    ([*QUICK, "--model.optimizer=torch.optim.AdamX"], ["'torch.optim.AdamX'", "'torch.optim.Adam'"]),
    ([*QUICK, "--model.optimizer.lr=abc"], ["model.optimizer.lr='abc'", "float"]),
    ([*QUICK, "--trainer.logger=TensorBoardLoger"], ["trainer.logger", "'TensorBoardLogger'"]),
    ([*QUICK, "--trainer.callbacks+=TraceSample"], ["trainer.callbacks", "'TraceSamples'"]),
    ([*QUICK, "--trainer.callbacks.evry=1"], ["trainer.callbacks", "'evry'", "RunReport"]),
    ([*QUICK, "--trainer.max_steps=x"], ["trainer.max_steps='x'", "int"]),
    ([*QUICK, "--model.policy.adapter.rank=2"], ["model.policy.adapter ", "'LoRA'"]),
    ([*SFT, "--config=sampled.yaml"], ["model.sampling", "SFTModule", "NRTModule has it"]),
    ([*SFT, "--model.sampling.group_size=4"], ["model.sampling", "SFTModule", "NRTModule has it"]),
    ([*QUICK, "--config=key.yaml"], ["'modle.", "'model."]),
    ([*QUICK, "--config=trainer.yaml"], ["'trainer.max_stepz'", "'trainer.max_steps'"]),
    ([*QUICK, "--config=classes.yaml"], ["model.filters", "'ZeroVarianceFiltr'", "'ZeroVarianceFilter'"]),
    ([*QUICK, "--config=broken.yaml"], ["--config broken.yaml:2: not valid YAML"]),
    ([*QUICK, "--config=tabs.yaml"], ["--config tabs.yaml:2: not valid YAML", "spaces"]),
    ([*QUICK, "--config=sub/empty.yaml"], ["--config sub/empty.yaml: the file holds no settings"]),
    ([*QUICK, "--config=null.yaml"], ["--config null.yaml:2: trainer has no settings"]),
    ([*QUICK, "--config=args.yaml"], ["--config args.yaml:2: model.init_args has no settings"]),
    ([*QUICK, "--config=twice.yaml"], ["--config twice.yaml:3: trainer is given twice", "line 1"]),
    ([*QUICK, "--config=inner.yaml"], ["--config inner.yaml:5: data.init_args.train is given twice", "line 3"]),
    (["fit", "--config"], ["--config: no file is given"]),
    ([*QUICK, "--config="], ["--config: no file is given"]),
    (["fit", "--config", "--data=x"], ["--config: no file is given"]),
    ([*QUICK, "--model.aggregator=of_mine.NoCall"], ["model.aggregator: of_mine.NoCall is abstract", "__call__"]),
    ([*QUICK, "--model.aggregator=nrt_lightning.nope.Prob"], ["'nrt_lightning.nope.Prob'", "Did you mean 'Prob'"]),
    ([*QUICK, "--seed_everything=-1"], ["seed_everything=-1: ", "0 to 4294967295"]),
    ([*QUICK, "--trainer.devices=-3"], ["trainer.devices=-3 "]),
    ([*QUICK, "--trainer.val_check_interval=0"], ["trainer.val_check_interval=0 "]),
    ([*QUICK, "--trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches=0 "]),
    ([*QUICK, "--trainer.check_val_every_n_epoch=0"], ["trainer.check_val_every_n_epoch=0 "]),
    ([*QUICK, "--model.optimizer.lr=-1"], ["model.optimizer.lr=-1", "AdamW"]),
    ([*QUICK, "--model.optimizer.betas=[2,3]"], ["model.optimizer.betas=", "2"]),
    ([*QUICK, "--model.optimizer.betas=0.9"], ["model.optimizer.betas=0.9", "[A, B]"]),
    ([*QUICK, "--model.optimizer.betas=[0.9]"], ["model.optimizer.betas=[0.9]", "2 values"]),
    ([*QUICK, "--ckpt_path="], ["ckpt_path is empty"]),
    ([*QUICK, "--ckpt_path=hpc"], ["ckpt_path='hpc'", "hpc_ckpt_"]),
    ([*QUICK, "--ckpt_path=registry_x/none.ckpt"], ["ckpt_path='registry_x/none.ckpt': no such file"]),
    (["evaluate", "--checkpoint=", "--questions=q.csv"], ["checkpoint is empty"]),
    (["predict", *QUICK[1:], "--data.predict=q.csv"], ["--predictions.path=FILE"]),
    ([*QUICK, "--config", "latin.yaml"], ["--config latin.yaml: not UTF-8", "0xf6"]),
    ([*QUICK, "--config=folder"], ["--config folder: a directory"]),
    (["export", "--config=tabs.yaml", "--out=m"], ["--config tabs.yaml:2: not valid YAML"]),
    (["chat", "missing-model", "--question=x"], ["'missing-model': no such directory here"]),
    ([*QUICK, "--config=sample.yaml"], ["sample.yaml", "'sampled.yaml'"]),
    ([*QUICK, "--config=configs/methods/nrt_gm.yaml"], ["configs/methods/nrt_gm.yaml", "'nrt:methods/nrt_gm'"]),
    ([*QUICK, "sampled.yaml"], ["'sampled.yaml'", "--config"]),
    (["fit"], ["model", "data", "nrt:quickstart"]),
    (["plan", "--optimizer.lr=1"], ["--optimizer.lr", "'model.optimizer.lr'"]),
    (["serve", "--serve.prt=1"], ["--serve.prt", "'serve.port'"]),
    (["compare", "--seedz=[0]"], ["--seedz", "'seeds'"]),
    (["export", "--checkpont=a"], ["--checkpont", "'checkpoint'"]),
]


@pytest.mark.parametrize(("command", "words"), CASES, ids=[" ".join(command[-1:]) for command, _ in CASES])
def test_one_line_with_the_culprit_and_the_fix(
    command: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = error(command, monkeypatch, capsys)
    assert found.count("\n") == 0, found
    assert len(found) < 400
    assert found.startswith("error: ")
    for word in words:
        assert word in found, found


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data={csv}", "--data={csv}: the file holds no settings of data. Did you mean --data.train={csv}?"),
        ("--data={jsonl}", "--data.train={jsonl}"),
        ("--data={json}", "--data.train={json}"),
        ("--data={text}", "--data={text}"),
        ("--model={csv}", "--model={csv}"),
        ("--trainer.callbacks+={csv}", "--trainer.callbacks={csv}"),
        ("--data.template={text}", "--data.template={text}"),
        ("--model.policy={jsonl}", "--model.policy={jsonl}"),
        ("--config={csv}", "--data.train={csv}"),
        ("--config={text}", "--config {text}"),
    ],
)
def test_the_content_of_a_file_is_not_quoted(
    option: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"csv": "hidden,answer\nhidden,1\n", "jsonl": '{"hidden": "hidden", "answer": "1"}\n',
            "json": '[{"hidden": "hidden"}]', "text": "hidden words\n"}  # fmt: skip
    for kind, text in rows.items():
        Path(f"rows.{kind}").write_text(text)
    names = {kind: f"rows.{kind}" for kind in rows}
    found = error([*QUICK, option.format(**names)], monkeypatch, capsys)
    assert found.startswith("error: ")
    assert words.format(**names) in found
    assert "hidden" not in found
    assert "\n" not in found


def test_a_pipe_is_not_read_for_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("rows.csv")
    assert "--data.train=rows.csv" in error([*QUICK, "--data=rows.csv"], monkeypatch, capsys)


def error(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints to stderr as it ends."""
    monkeypatch.setattr("sys.argv", ["nrt-lightning", *command])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    assert code not in (0, None)
    text = code if isinstance(code, str) else capsys.readouterr().err
    return "\n".join(line for line in text.strip().splitlines() if not line.startswith("Seed set"))


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("gpu", "cuda"):
        found = error([*QUICK, f"--trainer.accelerator={name}"], monkeypatch, capsys)
        assert found.startswith(f"error: trainer.accelerator={name}: ")
        assert "cpu" in found


def test_what_lightning_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = error([*QUICK, "--trainer.devices=0"], monkeypatch, capsys)
    assert found.startswith("error: ")
    assert "devices" in found
    assert "\n" not in found


def test_merge_keys_and_added_parts_are_no_repetition(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text(
        "trainer: {callbacks: [], callbacks+: [TraceSamples]}\na: &a {x: 1}\nb: &b {y: 1}\nc: {<<: *a, <<: *b, x: 2}\n"
    )
    check_files(["--config", str(path)], classes=True)


@pytest.mark.parametrize("said", ["", "the same command goes on"])
def test_a_command_that_is_interrupted_ends_with_one_line(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(args: list[str]) -> None:
        raise KeyboardInterrupt(*[said] if said else [])

    monkeypatch.setattr("nrt_lightning.cli.commands.plan.main", stop)
    monkeypatch.setattr("sys.argv", ["nrt-lightning", "plan"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"interrupted: {said}\n" if said else "interrupted\n"


def test_an_error_of_the_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise ValueError("bug:\n  - here")

    monkeypatch.setattr("nrt_lightning.cli.lightning_cli.make_cli", fail)
    monkeypatch.setattr("sys.argv", ["nrt-lightning", *QUICK])
    with pytest.raises(ValueError, match="bug"):
        main()
