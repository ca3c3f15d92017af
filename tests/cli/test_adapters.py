"""Adapters on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.small_runs import CONFIGS, QUICKSTART, SMALL, Command
from nrt_lightning.cli.lightning_cli import NRTCLI
from nrt_lightning.cli.main import run

KEEP = "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {dirpath: kept, save_last: true}}]}"


@pytest.mark.parametrize("name", [pytest.param("tiny_lora", marks=pytest.mark.slow), "tiny_qlora"])
def test_an_adapter_is_trained_resumed_and_tested_from_its_checkpoint(name: str) -> None:
    configs = [QUICKSTART, str(CONFIGS / "models" / f"{name}.yaml"), "small.yaml", "keep.yaml"]
    Path("small.yaml").write_text(SMALL)
    Path("keep.yaml").write_text(KEEP)

    def command(name: str, *options: str) -> NRTCLI:
        return run([name, *(f"--config={config}" for config in configs), *options])

    last = Path(command("fit").trainer.default_root_dir, "kept", "last.ckpt")
    kept = torch.load(last, weights_only=True)["state_dict"]
    assert all("lora_" in key or "trainable_tokens" in key for key in kept)
    assert command("fit", "--trainer.max_steps=3", f"--ckpt_path={last}").trainer.global_step == 3
    command("test", f"--ckpt_path={last}")


def test_paged_adamw_in_8_bits_is_an_optimizer_like_any_other(nrt: Command) -> None:
    lora = ["--model.policy.adapter=LoRA", "--model.policy.adapter.rank=2"]
    config = ["--config", str(CONFIGS / "optimizers" / "paged_adamw_8bit.yaml")]
    with pytest.warns(UserWarning, match="not supported on CPU"):  # there it is the same without the paging
        cli = nrt("fit", *lora, *config, "--model.optimizer.min_8bit_size=64")
    optimizer = cli.trainer.optimizers[0]
    assert type(optimizer).__name__ == "PagedAdamW8bit"
    moments = [state["state1"].dtype for state in optimizer.state.values()]
    assert len(moments) == len(cli.model.policy.state_dict())
    assert set(moments) == {torch.uint8}
