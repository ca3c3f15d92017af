"""`nrt-lightning export`, from a run's checkpoint to a directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import BASE

from cli.small_runs import Command
from nrt_lightning import InputError, Policy
from nrt_lightning.cli.main import run

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
    with pytest.raises(InputError, match=r"base cannot be read.*'./base'.*Give the base as --base"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m"])
    run(["export", f"--checkpoint={checkpoint()}", "--out=m", "--base=./elsewhere"])
    assert not Policy("./m").marker_is_new
    Policy("./elsewhere", weights="random").load().network.save_pretrained("elsewhere")
    with pytest.raises(InputError, match=r"base \w+ \(here \w+\)"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m2", "--base=./elsewhere"])
    assert not Path("m2").exists()


def test_an_adapter_with_another_tokenizer_is_refused(nrt: Command) -> None:
    nrt("fit", *LORA)
    tokenizer = Policy(BASE).tokenizer
    tokenizer.add_tokens(["<|another|>"])
    shutil.copytree(BASE, "base")
    tokenizer.save_pretrained("base")
    with pytest.raises(InputError, match=r"vocabulary 64 \(here 65\)"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m", "--base=./base"])


def test_the_form_is_chosen_by_class(nrt: Command) -> None:
    nrt("fit", *LORA)
    run(["export", f"--checkpoint={checkpoint()}", "--out=a", "--form=AdapterFiles"])
    assert Path("a/adapter_model.safetensors").is_file()
    run(["export", f"--checkpoint={checkpoint()}", "--out=m", "--form=Merged", "--form.dtype=float16"])
    assert {value.dtype for value in load_file("m/model.safetensors").values()} == {torch.float16}
    with pytest.raises(InputError, match="Use Merged"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=w", "--form=WholeModel"])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "no such file"),
        (b"garbage", "no checkpoint that can be read"),
        ({"state_dict": {}}, "its module was built in Python"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(write: object, message: str) -> None:
    if isinstance(write, bytes):
        Path("x.ckpt").write_bytes(write)
    elif write is not None:
        torch.save(write, "x.ckpt")
    with pytest.raises(InputError, match=message):
        run(["export", "--checkpoint=x.ckpt", "--out=m"])


def test_an_adapter_of_random_weights_is_exported_by_its_run(nrt: Command) -> None:
    nrt("fit", *LORA, "--model.policy.weights=random")
    with pytest.raises(InputError, match=r"only its run can draw again. Resume the run with the callback ExportPolicy"):
        run(["export", f"--checkpoint={checkpoint()}", "--out=m"])
