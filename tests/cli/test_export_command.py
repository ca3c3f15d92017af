"""`nrt-lightning export`, from a run's checkpoint to a directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import BASE

from cli.small_runs import QUICKSTART, Command
from nrt_lightning import InputError, Policy
from nrt_lightning.cli.main import run
from nrt_lightning.export.hub import Hub

LORA = ["--model.policy.adapter=LoRA", "--model.policy.adapter.rank=4"]


def checkpoint() -> str:
    (path,) = Path("out/checkpoints").glob("*.ckpt")
    return str(path)


def test_a_checkpoint_becomes_a_model(nrt: Command) -> None:
    cli = nrt("fit", "--model.optimizer.lr=0.01")
    run(["export", f"--checkpoint={checkpoint()}", "--out=m"])
    trained = dict(cli.model.policy.network.named_parameters())
    saved = load_file("m/model.safetensors")
    assert saved
    assert all(torch.equal(value, trained[name]) for name, value in saved.items())
    card = Path("m/README.md").read_text()
    assert "val/exact_match" in card
    assert "RegisterPrograms" in card
    assert Policy("./m").tokenizer.chat_template == cli.datamodule.template.jinja(cli.model.policy.tokenizer)


def test_an_adapters_checkpoint_needs_its_own_base(nrt: Command, tmp_path: Path) -> None:
    shutil.copytree(BASE, "base")
    nrt("fit", *LORA, "--model.policy.model=./base")
    shutil.move("base", "elsewhere")
    with pytest.raises(InputError, match=r"'./base'.*--base"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m"])
    run(["export", f"--checkpoint={checkpoint()}", "--out=m", "--base=./elsewhere"])
    assert not Policy("./m").marker_is_new
    Policy("./elsewhere", weights="random").load().network.save_pretrained("elsewhere")
    with pytest.raises(InputError, match=r"another|differ"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m2", "--base=./elsewhere"])
    assert not Path("m2").exists()


def test_an_adapter_with_another_tokenizer_is_refused(nrt: Command) -> None:
    nrt("fit", *LORA)
    tokenizer = Policy(BASE).tokenizer
    tokenizer.add_tokens(["<|another|>"])
    shutil.copytree(BASE, "base")
    tokenizer.save_pretrained("base")
    with pytest.raises(InputError, match=r"vocabulary\W64\b.*\b65\b"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m", "--base=./base"])


def test_the_form_is_chosen_by_class(nrt: Command) -> None:
    nrt("fit", *LORA)
    run(["export", f"--checkpoint={checkpoint()}", "--out=a", "--form=AdapterFiles"])
    assert Path("a/adapter_model.safetensors").is_file()
    run(["export", f"--checkpoint={checkpoint()}", "--out=m", "--form=Merged", "--form.dtype=float16"])
    assert {value.dtype for value in load_file("m/model.safetensors").values()} == {torch.float16}
    with pytest.raises(InputError, match=r"WholeModel.*Merged"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=w", "--form=WholeModel"])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "no such file"),
        (b"garbage", "cannot be read"),
        ({"state_dict": {}}, "export_policy"),
    ],
)
def test_files_that_are_not_checkpoints_of_a_run_are_refused(write: object, message: str) -> None:
    if isinstance(write, bytes):
        Path("x.ckpt").write_bytes(write)
    elif write is not None:
        torch.save(write, "x.ckpt")
    with pytest.raises(InputError, match=f"checkpoint='x.ckpt'.*{message}"):
        run(["export", "--checkpoint=x.ckpt", "--out=m"])


def test_an_adapter_of_random_weights_is_exported_by_its_run(nrt: Command) -> None:
    nrt("fit", *LORA, "--model.policy.weights=random")
    with pytest.raises(InputError, match=r"policy\.weights.*ExportPolicy"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m"])


def test_the_best_or_last_checkpoint_of_a_run_is_named_by_its_config(
    nrt: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = nrt("fit", "--trainer.callbacks=BestAndLast", "--trainer.default_root_dir=runs/a", "--trainer.max_steps=4")
    steps = {name: torch.load(f"runs/a/checkpoints/{name}.ckpt")["global_step"] for name in ("best", "last")}
    assert steps["last"] == 4
    run_of = ["--config", QUICKSTART, "--config=small.yaml", "--trainer.default_root_dir", "runs/a"]
    capsys.readouterr()
    run(["export", *run_of, "--trainer.callbacks=BestAndLast", "--out=m"])
    assert f"best.ckpt (step {steps['best']})" in capsys.readouterr().out
    run(["export", "--checkpoint=last", *run_of, "--out=n"])
    assert "last.ckpt (step 4)" in capsys.readouterr().out
    saved = load_file("n/model.safetensors")
    trained = dict(cli.model.policy.network.named_parameters())
    assert all(torch.equal(value, trained[name]) for name, value in saved.items())


def test_the_saved_configuration_names_the_run(nrt: Command, capsys: pytest.CaptureFixture[str]) -> None:
    nrt("fit", "--trainer.callbacks=BestAndLast")
    run(["export", "--config", "out/config.yaml", "--out=m"])
    assert "checkpoint=best: reading out/checkpoints/best.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out=m"], "no --checkpoint"),
        (["--checkpoint=best", "--out=m"], r"checkpoint='best': no checkpoint in checkpoints"),
        (["--checkpoint=last"], "--out"),
        (["--checkpoint=last", "--out=m", "--private=true"], "--push_to_hub"),
        (["--checkpoint=last", "--push_to_hub=name"], r"'name' has no owner"),
    ],
)
def test_what_is_missing_is_named(options: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(["export", *options])


def test_an_export_is_uploaded(
    nrt: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uploaded: dict[str, set[str]] = {}

    def upload(hub: Hub, directory: Path) -> None:
        uploaded[hub.name] = {path.name for path in directory.iterdir()}

    monkeypatch.setattr(Hub, "create", lambda hub: f"https://hub.example/{hub.name}")
    monkeypatch.setattr(Hub, "upload", upload)
    nrt("fit")
    run(["export", f"--checkpoint={checkpoint()}", "--push_to_hub=me/model"])
    assert {"model.safetensors", "README.md", "nrt_lightning.json", "tokenizer.json"} <= uploaded["me/model"]
    printed = capsys.readouterr().out
    assert "uploaded to https://hub.example/me/model" in printed
    assert "no license" in printed
    assert not Path("m").exists()
