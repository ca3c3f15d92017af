"""Settings of `fit` that are found wrong, or tried, before the first step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from cli.small_runs import Command, small_args
from nrt_lightning import CheckLongest
from nrt_lightning.cli.main import main


def test_check_longest_is_a_flag_of_fit_alone(nrt: Command, capsys: pytest.CaptureFixture[str]) -> None:
    cli = nrt("fit", "--check_longest", "--trainer.max_steps=1", "--model.max_tokens_per_micro_batch=auto")
    assert any(isinstance(callback, CheckLongest) for callback in cli.trainer.callbacks)  # type: ignore[attr-defined]
    assert cli.model.max_tokens_per_micro_batch == "auto"
    assert "check_longest" not in yaml.safe_load(Path("out/config.yaml").read_text())
    assert not any(isinstance(callback, CheckLongest) for callback in nrt("fit").trainer.callbacks)  # type: ignore
    with pytest.raises(SystemExit):
        nrt("validate", "--check_longest")


def test_an_interval_longer_than_the_epoch_is_named_in_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["nrt-lightning", *small_args("fit", tmp_path, "--trainer.val_check_interval=50")])
    with pytest.raises(
        SystemExit, match=r"^error: trainer\.val_check_interval=50: an epoch has 4 micro-batches"
    ) as found:
        main()
    assert "check_val_every_n_epoch=null" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("option", ["model.policy.adapter", "model.init_args.policy.init_args.adapter"])
def test_null_removes_the_adapter_of_a_config(nrt: Command, tmp_path: Path, capsys, option: str) -> None:
    Path("lora.yaml").write_text("model: {init_args: {policy: {init_args: {adapter: {class_path: LoRA}}}}}")
    with pytest.raises(SystemExit):
        nrt("fit", "--config=lora.yaml", f"--{option}=null", "--print_config")
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["model"]["init_args"]["policy"]["init_args"]["adapter"] is None
